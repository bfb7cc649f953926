"""Write operators/config/default/operator.yaml: the operator's own objects as the chart renders them, for
`kubectl apply -k` next to a release `golongrl` that has `operator.external`. Needs helm on PATH.

    python scripts/operator_manifests.py

A test compares the file with the chart.
"""

import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml

from golongrl import yaml_text
from golongrl.kubernetes.helm import helm_path
from golongrl.kubernetes.rayjob.render import chart

TARGET = Path(__file__).resolve().parent.parent / "operators" / "config" / "default" / "operator.yaml"
HEADER = """\
# The operator's objects for a release `golongrl`, as its chart renders them. Written by scripts/operator_manifests.py.
"""
# Helm's own, which would say that Helm manages these objects.
_HELMS = ("app.kubernetes.io/managed-by", "helm.sh/chart")
_FILES = ("serviceaccount", "rbac", "deployment")


def text(helm: str) -> str:
    """The file."""
    words = [helm, "template", "golongrl", str(chart()), "--namespace", "golongrl", "--set", "operator.enabled=true"]
    words += ["--set", "learner.enabled=false", "--api-versions", "ray.io/v1/RayJob"]
    words += [word for name in _FILES for word in ("--show-only", f"templates/operator/{name}.yaml")]
    done = subprocess.run(words, capture_output=True, text=True, check=True, timeout=120)
    return HEADER + "---\n" + yaml_text.dump_all([plain(item) for item in yaml.safe_load_all(done.stdout)])


def plain(item: dict[str, Any]) -> dict[str, Any]:
    """Without what is Helm's, and without the checksum of a document that this file does not have."""
    labels = item["metadata"]["labels"]
    item["metadata"]["labels"] = {key: value for key, value in labels.items() if key not in _HELMS}
    if item["kind"] == "Deployment":
        item["spec"]["template"]["metadata"].pop("annotations", None)
    return item


if __name__ == "__main__":
    TARGET.parent.mkdir(parents=True, exist_ok=True)
    TARGET.write_text(text(helm_path()), "utf-8")
    sys.stdout.write(f"wrote: {TARGET}\n")
