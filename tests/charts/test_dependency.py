"""The chart as a dependency of another one, which has its condition, its `global` and its other charts."""

import json
from pathlib import Path

import pytest

from support.helm import CHART, Helm

ALIASES = ("trainer", "other")


@pytest.fixture
def parent(tmp_path: Path) -> Path:
    """A chart with this one under two names, each with the usual condition."""
    listed = [
        {"name": "golongrl", "alias": name, "version": ">=0", "repository": "", "condition": f"{name}.enabled"}
        for name in ALIASES
    ]
    chart = {"apiVersion": "v2", "name": "parent", "version": "0.1.0", "dependencies": listed}
    (tmp_path / "Chart.yaml").write_text(json.dumps(chart))
    (tmp_path / "charts").mkdir()
    (tmp_path / "charts" / "golongrl").symlink_to(CHART)
    return tmp_path


def test_a_parent_has_its_condition_and_global_values_of_its_other_charts(helm4: Helm, parent: Path) -> None:
    values = [
        "trainer.enabled=true",
        "other.enabled=false",
        "global.storageClass=fast",
        "global.imageRegistry=m.example",
    ]
    done = helm4.run("template", "demo", str(parent), "--set", ",".join(values))
    assert done.returncode == 0, done.stderr
    assert "name: demo-trainer-redis" in done.stdout
    assert 'image: "m.example/' in done.stdout


@pytest.mark.full
def test_the_chart_twice_in_one_release_is_refused(helm: Helm, parent: Path) -> None:
    done = helm.run("template", "demo", str(parent))
    assert "the release has this chart twice, as trainer and as other" in done.stderr


@pytest.mark.full
@pytest.mark.parametrize(
    ("value", "told"), [("global.storageClass=fast", "global.storageClass"), ("enabled=false", "enabled")]
)
def test_a_release_of_the_chart_itself_has_none_of_these_keys(helm: Helm, value: str, told: str) -> None:
    assert f"{told}: " in helm.run("template", "demo", str(CHART), "--set", value).stderr
