"""`golongrl metrics` (the catalogue, how to scrape a local run), `golongrl dashboards` and `golongrl trace`."""

import json
import sys
from collections.abc import Iterator
from io import TextIOWrapper
from pathlib import Path
from typing import Annotated

import typer

from golongrl import files
from golongrl.errors import GolongrlError, InputError, printable, writing_to
from golongrl.reading import open_input

app = typer.Typer(
    help="Prometheus metrics: what every service exports.",
    epilog="Example: `golongrl metrics list --service learner`",
    no_args_is_help=True,
)


def trace(
    what: Annotated[str, typer.Argument(help="A group's uid, as EPOCH-ROW, or the number of a step.")],
    name: Annotated[str | None, typer.Option(help="A run of `golongrl train`: its logs are read.")] = None,
    out: Annotated[Path, typer.Option(help="Folder of runs, with --name.")] = Path("runs"),
    logs: Annotated[
        list[Path] | None, typer.Option(help="Log files of the run's processes; `-` is the input. Repeatable.")
    ] = None,
) -> None:
    """Print the life of a group or of a step from the run's logs: who did what, and when.

    A group: leased, sampled, scored, submitted, in which batch, and which weights came of it. A step: its batch's
    groups, the update, its weights on their way to the engines.
    """
    from golongrl.telemetry import life

    if not (what.isdecimal() or life.UID.fullmatch(what)):
        raise InputError(f"trace {what}: give a uid such as 0-17, or the number of a step")
    events = life.read(_lines(what, name, out, logs or []))
    found = life.of_step(events, int(what)) if what.isdecimal() else life.of_group(events, what)
    if not found:
        raise GolongrlError(f"trace {what}: the logs do not name it")
    print(printable("\n".join(life.tell(found))))


def _lines(what: str, name: str | None, out: Path, logs: list[Path]) -> Iterator[str]:
    if (name is None) == (not logs):
        raise InputError(f"trace {what}: give either --name or --logs")
    if name is not None:
        logs = sorted((out / name / "logs").glob("*.log"))
        if not logs:
            raise InputError(f"trace {what}: no logs of a run in {out / name}")
    for path in logs:
        try:
            if str(path) == "-":
                yield from sys.stdin
                continue
            with TextIOWrapper(open_input(path), "utf-8", "replace") as file:
                yield from file
        except OSError as error:
            raise InputError(f"trace {what}: {path}: {error.strerror or error}") from error


dashboards = typer.Typer(
    help="Grafana dashboards: the same files that the chart installs.",
    epilog="Example: `golongrl dashboards export grafana/`",
    no_args_is_help=True,
)


@dashboards.callback()
def _dashboards() -> None:
    """Without it, typer would take the only command for the whole."""


@dashboards.command(epilog="Example: `golongrl dashboards export grafana/`")
def export(
    folder: Annotated[Path, typer.Argument(help="Folder for the JSON files; made if it is not there.")],
) -> None:
    """Write the dashboards as JSON, for Grafana's import or its provisioning from files."""
    from golongrl.kubernetes.rayjob.render import chart

    files.refuse_elsewhere(folder)
    found = sorted((chart() / "files" / "dashboards").glob("*.json"))
    for source in found:
        if _is_another(folder / source.name, source):
            raise InputError(f"dashboards export: {folder / source.name} is another file; move it away first")
    with writing_to(f"dashboards export {folder}"):
        folder.mkdir(parents=True, exist_ok=True)
        for source in found:
            files.write_text(folder / source.name, source.read_text("utf-8"))
    print(f"{len(found)} dashboards in {folder}")


def _is_another(path: Path, source: Path) -> bool:
    """Whether something else than an older copy of `source` is there."""
    if not path.exists():
        return False
    try:
        uid = json.loads(path.read_text("utf-8"))["uid"]
    except (OSError, ValueError, LookupError, TypeError, RecursionError):
        return True
    return bool(uid != json.loads(source.read_text("utf-8"))["uid"])


@app.command("scrape-config", epilog="Example: `golongrl metrics scrape-config mine > prometheus.yml`")
def scrape_config(
    name: Annotated[str, typer.Argument(help="Name of a run of `golongrl train`.")],
    out: Annotated[Path, typer.Option(help="Folder of runs.")] = Path("runs"),
    interval: Annotated[str, typer.Option(help="Scrape interval, as a Prometheus duration.")] = "5s",
    job: Annotated[
        list[str] | None,
        typer.Option(help="A job on this machine and its --metrics-port: `evaluation=9101`, `data=9102`. Repeatable."),
    ] = None,
) -> None:
    """Print a Prometheus configuration that scrapes a run on this machine; its ports are those of its last start."""
    from golongrl.monitoring.scrape import config
    from golongrl.telemetry.run_info import RunInfo

    info = RunInfo.read(out / name)
    if info is None:
        raise InputError(f"metrics scrape-config {name}: no run in {out / name}")
    if not info.ports:
        raise InputError(f"metrics scrape-config {name}: its services have not been started yet")
    print(config(info.run, {**info.ports, **dict(map(_job_port, job or []))}, interval), end="")


def _job_port(text: str) -> tuple[str, int]:
    name, _, port = text.partition("=")
    if name not in ("evaluation", "data") or not (port.isdecimal() and 0 < int(port) < 1 << 16):
        raise InputError(f"--job {text}: give evaluation=PORT or data=PORT")
    return name, int(port)


@app.command("list", epilog="Example: `golongrl metrics list --service learner`")
def list_(
    service: Annotated[str | None, typer.Option(help="Only this service's: learner, queue, rollout, ...")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="A JSON array instead of a table.")] = False,
) -> None:
    """Print every metric with its type, unit, labels and meaning (docs/metrics.md has the same)."""
    from golongrl.monitoring.catalogues import CATALOGUES, records

    known = [catalogue.service for catalogue in CATALOGUES]
    if service is not None and service not in known:
        raise InputError(f"--service {service}: no such service; there are {', '.join(known)}")
    found = [record for record in records() if service in (None, record["service"])]
    if as_json:
        print(json.dumps(found, indent=2))
        return
    for record in found:
        labels = record["labels"]
        assert isinstance(labels, list)
        name = f"{record['name']}{{{','.join(labels)}}}" if labels else str(record["name"])
        unit = f", {record['unit']}" if record["unit"] else ""
        print(f"{name}\n    {record['type']}{unit}. {record['meaning']}")
