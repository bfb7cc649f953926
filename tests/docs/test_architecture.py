"""docs/: every name of the code, suite or benchmark that a page mentions is there, and every link leads to a file."""

import importlib
import re
from pathlib import Path

import pytest

from golongrl.evaluation.registry import BENCHMARKS, SUITES

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md"), *ROOT.glob("*/README.md"),
                *ROOT.glob("services/golongrl/*/README.md"), *ROOT.glob("charts/golongrl/README.md")])  # fmt: skip
NAME = re.compile(r"`(golongrl(?:_operator)?(?:\.\w+)+)`")
LINK = re.compile(r"\]\((?!https?://|#)([^)#]+)")
# Where a page names a suite or a benchmark; SUITE and an option are none.
SUITE = re.compile(
    r"(?:golongrl eval (?:run|fetch|show) |render evaljob |evaluation\.suite=|^ *suite: |\"benchmark\":\")"
    r"([a-z0-9][a-z0-9.-]*)",
    re.MULTILINE,
)


def names() -> list[str]:
    return sorted({name for page in PAGES if page.name != "CHANGELOG.md" for name in NAME.findall(page.read_text())})


@pytest.mark.parametrize("name", names())
def test_a_name_is_there(name: str) -> None:
    parts = name.split(".")
    for length in range(len(parts), 0, -1):
        try:
            found: object = importlib.import_module(".".join(parts[:length]))
        except ModuleNotFoundError as error:
            if not name.startswith(str(error.name)):
                raise
            continue
        for attribute in parts[length:]:
            found = getattr(found, attribute)
        return
    pytest.fail(f"no module of {name}")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_to_files(page: Path) -> None:
    missing = [link for link in LINK.findall(page.read_text()) if not (page.parent / link).exists()]
    assert missing == []


def test_the_journeys_name_what_they_pass() -> None:
    """A page without names would pass the test above."""
    assert len([name for name in names() if name.startswith("golongrl.")]) > 40


def test_scripts_of_the_queue_that_the_pages_name_are_there() -> None:
    text = (ROOT / "docs" / "architecture.md").read_text()
    named = set(re.findall(r"`(?:\S*/)?(\w+\.lua)`", text))
    assert {"lease.lua", "submit.lua", "take.lua"} <= named
    assert all((ROOT / "services" / "golongrl" / "queue" / "lua" / name).is_file() for name in named)


def test_suites_and_benchmarks_of_the_pages_are_there() -> None:
    more = [*ROOT.glob("operators/config/samples/*.yaml"), *ROOT.glob("examples/**/*.yaml")]
    found = {(name, page.name) for page in [*PAGES, *more] for name in SUITE.findall(page.read_text())}
    assert len(found) > 10
    assert [one for one in sorted(found) if one[0] not in {*SUITES, *BENCHMARKS, "my-suite.yaml"}] == []
