"""Ways of sizing the rollout pool, compared over days in virtual time; prints a table and writes a chart for each load.

    python benchmarks/scaling.py --days 3 --out docs/images

The model is tests/support/pool_simulation.py. A chart shows the engines that the learner needs, those that the
controller asks for, and those that a HorizontalPodAutoscaler on GPU use would ask for.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))
from support.pool_simulation import DAY_S, LOADS, Moment, SimulatedRun, World, compare

_WIDTH: Final = 860
_HEIGHT: Final = 260
_LEFT: Final = 46
_BOTTOM: Final = 34
_TOP: Final = 24
# Points of a line; more than the chart has pixels are of no use.
_POINTS: Final = 720
_COLOURS: Final = {"need": "#888888", "controller": "#0b6e4f", "HPA on GPU use": "#c44536"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--days", type=float, default=3.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, help="folder for the charts")
    words = parser.parse_args()
    print("| load | way | steps | engines' GPU hours | all GPU hours | changes |")
    print("| --- | --- | --- | --- | --- | --- |")
    for name, load in LOADS.items():
        outcomes = compare(World(load, days=words.days), words.seed)
        for way, found in outcomes.items():
            print(f"| {name} | {way} | {row(found, outcomes['hindsight'])} |")
        if words.out:
            words.out.mkdir(parents=True, exist_ok=True)
            path = words.out / f"scaling-{name.replace(' ', '-')}.svg"
            path.write_text(chart(name, outcomes), "utf-8")


def row(found: SimulatedRun, best: SimulatedRun) -> str:
    """A way's figures, as shares of hindsight's."""
    shares = (
        found.steps / best.steps, found.engine_hours / best.engine_hours, found.gpu_hours / best.gpu_hours,
    )  # fmt: skip
    return " | ".join([*(f"{share:.3f}" for share in shares), str(found.changes)])


def chart(name: str, outcomes: dict[str, SimulatedRun]) -> str:
    """An SVG with engines over days."""
    moments = outcomes["controller"].moments
    lines = {"need": [moment.need for moment in moments]}
    lines |= {way: [float(moment.asked) for moment in outcomes[way].moments] for way in _COLOURS if way != "need"}
    most = max(max(line) for line in lines.values()) * 1.05
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT}" font-family="sans-serif" '
        'font-size="12">',
        f'<rect width="{_WIDTH}" height="{_HEIGHT}" fill="white"/>',
        f'<text x="{_LEFT}" y="15">{name}: engines over days</text>',
        *axes(moments, most),
    ]
    for at, (way, line) in enumerate(lines.items()):
        dash = ' stroke-dasharray="4 3"' if way == "need" else ""
        points = " ".join(f"{x:.1f},{y:.1f}" for x, y in positions(line, most))
        parts.append(
            f'<polyline points="{points}" fill="none" stroke="{_COLOURS[way]}" stroke-width="1.5"{dash}/>'
            f'<text x="{_WIDTH - 330 + 110 * at}" y="15" fill="{_COLOURS[way]}">{way}</text>'
        )
    return "\n".join([*parts, "</svg>"]) + "\n"


def axes(moments: Sequence[Moment], most: float) -> list[str]:
    """Days below, engines at the left."""
    floor, days = _HEIGHT - _BOTTOM, moments[-1].at / DAY_S
    found = [f'<path d="M{_LEFT},{_TOP} V{floor} H{_WIDTH - 10}" fill="none" stroke="black"/>']
    step = max(1, round(most / 5))
    for engines in range(0, int(most) + 1, step):
        y = floor - engines / most * (floor - _TOP)
        found.append(f'<text x="{_LEFT - 8}" y="{y + 4:.0f}" text-anchor="end">{engines}</text>')
    for day in range(int(days + 0.5) + 1):
        x = _LEFT + day / days * (_WIDTH - 10 - _LEFT)
        found.append(f'<text x="{min(x, _WIDTH - 20):.0f}" y="{floor + 18}" text-anchor="middle">{day} d</text>')
    return found


def positions(line: Sequence[float], most: float) -> list[tuple[float, float]]:
    """Pixels of a line, thinned out."""
    stride, floor = max(1, len(line) // _POINTS), _HEIGHT - _BOTTOM
    last = len(line) - 1
    return [
        (_LEFT + at / last * (_WIDTH - 10 - _LEFT), floor - line[at] / most * (floor - _TOP))
        for at in range(0, len(line), stride)
    ]


if __name__ == "__main__":
    main()
