"""`golongrl render evaljob`: the chart's evaluation Job with what it needs in addition, for `kubectl apply`."""

from collections.abc import Iterable
from pathlib import Path
from typing import Final

from golongrl.kubernetes.component import component_yaml

_HEADER: Final = """\
# The evaluation of the newest weights of the release {release!r}, for `kubectl apply --server-side -f`. The data has to
# be on the release's volume. The Job's own name contains its command: another suite is another Job.
"""


def evaljob_yaml(
    suite: str, release: str, namespace: str = "", files: Iterable[Path] = (), settings: Iterable[str] = ()
) -> str:
    """Job, service account and network policy as YAML.

    Raises:
        InputError: a file, a key or a value is wrong, or Helm or Kubernetes would refuse a name.
        HelmError: helm is missing, or the chart refuses, as a suite that its image does not have.
    """
    return _HEADER.format(release=release) + component_yaml(
        "evaluation", {"suite": suite}, release, namespace, files, settings
    )
