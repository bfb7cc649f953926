"""Write every generated file (chart values, their schema, CRD, recipes, suites, reference pages); `--check` compares.

Run it (`make generate`) after changing golongrl.kubernetes, golongrl_operator, golongrl.recipe.models, a suite, a
metric, a log line, a dashboard, a packaged recipe, a preset or the version, which only services/golongrl/__init__.py
says: the rest is written here.
"""

import argparse
import json
import re
import sys
from pathlib import Path

from golongrl import __version__, recipe
from golongrl.evaluation.registry import NAMES
from golongrl.kubernetes.values import reference, schema
from golongrl.monitoring import catalogues, log_events
from golongrl.monitoring.dashboards import render
from golongrl.monitoring.dashboards.pages import PAGES
from golongrl_operator import crd

# In a subchart, because Helm installs a chart's CRDs whatever its values; a subchart's only where it is on.
CRD = Path("charts", "crds", "crds", "trainingruns.golongrl.io.yaml")
ROOT = Path(__file__).resolve().parent.parent
CHART = ROOT / "charts" / "golongrl"
# Files that repeat the version among other lines, and where in them it stands.
VERSIONED = {
    "charts/golongrl/Chart.yaml": r"(?<=ersion: )\d\S*",
    "charts/golongrl/charts/crds/Chart.yaml": r"(?<=ersion: )\d\S*",
    "charts/golongrl/values-*.yaml": r"\d[\w.]*(?=-cuda\b)",
    "charts/golongrl/README.md": r"\d[\w.]*(?=-cuda\b)",
    "images/Dockerfile": r"(?<=^ARG VERSION=)\S+",
}


def versioned() -> dict[Path, str]:
    """Every file that repeats the version, with the current one in it."""
    return {
        path: re.sub(pattern, __version__, path.read_text("utf-8"), flags=re.MULTILINE)
        for glob, pattern in VERSIONED.items()
        for path in sorted(ROOT.glob(glob))
    }


def generated() -> dict[Path, str]:
    """Every generated file and its text."""
    files = versioned() | {
        CHART / "values.yaml": schema.values_yaml(),
        CHART / "values.schema.json": json.dumps(schema.values_schema(), indent=2) + "\n",
        CHART / "files" / "recipe-defaults.json": json.dumps(schema.recipe_defaults(), indent=2) + "\n",
        CHART / "files" / "suites.json": json.dumps(NAMES, indent=2) + "\n",
        CHART / CRD: crd.crd_yaml(),
        ROOT / "docs" / "recipe.md": reference.recipe_page(),
        ROOT / "docs" / "suite.md": reference.suite_page(),
        ROOT / "docs" / "values.md": reference.values_page(),
        ROOT / "docs" / "metrics.md": catalogues.page(),
        ROOT / "docs" / "logs.md": log_events.page(),
    }
    for page in PAGES:
        files[CHART / "files" / "dashboards" / f"{page.slug}.json"] = render.text(page)
    for name in recipe.packaged():
        # The chart cannot read the Python package, so it carries the recipes that presets name. As JSON, with quoted
        # keys: to Helm's YAML reader the key `n` is the boolean false.
        text = json.dumps(recipe.read_yaml(recipe.source(name)), indent=2, ensure_ascii=False)
        files[CHART / "files" / "recipes" / f"{name}.json"] = text + "\n"
    return files


def stale(files: dict[Path, str]) -> list[Path]:
    """Those of `files` that are missing or out of date."""
    return [path for path, text in files.items() if not path.is_file() or path.read_text("utf-8") != text]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="change nothing; exit 1 if a file is out of date")
    check = parser.parse_args().check
    files = generated()
    old = stale(files)
    for path in old:
        if check:
            print(f"out of date: {path.relative_to(ROOT)} (run `make generate`)")
        else:
            print(f"wrote: {path.relative_to(ROOT)}")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(files[path], "utf-8")
    return int(check and bool(old))


if __name__ == "__main__":
    sys.exit(main())
