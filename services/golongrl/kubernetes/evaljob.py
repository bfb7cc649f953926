"""`golongrl render evaljob`: the chart's evaluation Job with what it needs in addition, for `kubectl apply`."""

from collections.abc import Iterable
from pathlib import Path
from typing import Final

import yaml

from golongrl.errors import InputError
from golongrl.evaluation.registry import BENCHMARKS, SUITES
from golongrl.kubernetes.component import component_yaml
from golongrl.kubernetes.values import Values

_HEADER: Final = """\
# The evaluation of the newest weights of the release {release!r}, for `kubectl apply --server-side -f`. The data has to
# be on the release's volume. The Job's own name contains its command: another suite is another Job.
"""
# Another image may have suites of its own.
_OURS: Final = Values().evaluation.image.repository


def refuse_suite(key: str, suite: str, image: str) -> None:
    """Refuse what the Job itself would refuse, perhaps days later.

    Args:
        key: what named the suite.
        image: reference or repository of the Job's image.

    Raises:
        InputError: this version has no such suite or benchmark, and the image is its own.
    """
    known = [*SUITES, *BENCHMARKS]
    if suite not in known and _OURS in image:
        raise InputError(f"{key}: {suite!r} is none of {', '.join(known)}")


def evaljob_yaml(
    suite: str, release: str, namespace: str = "", files: Iterable[Path] = (), settings: Iterable[str] = ()
) -> str:
    """Job, service account and network policy as YAML.

    Raises:
        InputError: a file, a key, a value or the suite is wrong, or Helm or Kubernetes would refuse a name.
        HelmError: helm is missing or refuses.
    """
    text = component_yaml("evaluation", {"suite": suite}, release, namespace, files, settings)
    (job,) = (found for found in yaml.safe_load_all(text) if found["kind"] == "Job")
    (container,) = job["spec"]["template"]["spec"]["containers"]
    refuse_suite("evaluation.suite", container["command"][3], container["image"])
    return _HEADER.format(release=release) + text
