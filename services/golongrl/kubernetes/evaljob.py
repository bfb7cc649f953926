"""`golongrl render evaljob`: the chart's evaluation Job with what it needs in addition, for `kubectl apply`.

helm renders the chart's templates, so that this Job is the one that `evaluation.enabled` creates.
"""

import subprocess
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final

import yaml

from golongrl import yaml_text
from golongrl.kubernetes.names import check_names
from golongrl.kubernetes.rayjob.load import load_values
from golongrl.kubernetes.rayjob.render import HelmError, chart, helm_path, reason

_HELM_S: Final = 120
_COMPONENT: Final = "app.kubernetes.io/component"
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
        HelmError: helm is missing or refuses.
    """
    check_names(release, namespace)
    files = list(files)
    load_values(files)
    command = [helm_path(), "template", release, str(chart()), "--namespace", namespace or "default"]
    command += [word for path in files for word in ("--values", str(path))]
    command += [word for item in settings for word in ("--set", item)]
    command += ["--set", "evaluation.enabled=true", "--set-string", f"evaluation.suite={suite}"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_HELM_S, check=False)
    except subprocess.TimeoutExpired as error:
        raise HelmError(f"helm template did not end within {_HELM_S} s") from error
    if done.returncode:
        raise HelmError(f"helm template: {reason(done.stderr)}")
    objects = [found for found in yaml.safe_load_all(done.stdout) if found and _is_evaluations(found)]
    if not namespace:
        for found in objects:
            del found["metadata"]["namespace"]
    return _HEADER.format(release=release) + yaml_text.dump_all(objects)


def _is_evaluations(found: dict[str, Any]) -> bool:
    return (found["metadata"].get("labels") or {}).get(_COMPONENT) == "evaluation"
