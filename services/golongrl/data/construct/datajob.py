"""`golongrl render datajob`: the chart's Jobs that construct data, with what they need in addition."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final

from golongrl.data.construct.errors import PipelineError
from golongrl.data.construct.load import dump, load
from golongrl.data.construct.models import Pipeline
from golongrl.data.construct.stage import StageName
from golongrl.data.construct.tables import ORDER
from golongrl.kubernetes.component import component_yaml

_HEADER: Final = """\
# The pipeline {pipeline} on the volume of the release {release!r}, for `kubectl apply --server-side -f`.
# Paths in it are those of the pods: /store is the release's volume, /documents is construction.documentsClaim.
"""


def datajob_yaml(
    name: str,
    overrides: Iterable[str],
    stages: Sequence[str],
    release: str,
    namespace: str = "",
    files: Iterable[Path] = (),
    settings: Iterable[str] = (),
) -> str:
    """ConfigMap, Jobs or RayJobs, service account and network policy as YAML.

    Args:
        name: of a packaged pipeline, or a pipeline file.
        overrides: of the pipeline, as `select.oversample=2`.
        stages: a Job for each; none: one Job for all stages of the pipeline.

    Raises:
        InputError: a file, a key or a value is wrong, or Helm or Kubernetes would refuse a name.
        HelmError: helm is missing or refuses.
    """
    pipeline = load(name, overrides)
    chosen = {"pipeline": dump(pipeline), "stages": _checked(pipeline, stages)}
    text = component_yaml("construction", chosen, release, namespace, files, settings)
    return _HEADER.format(pipeline=pipeline.name, release=release) + text


def _checked(pipeline: Pipeline, stages: Sequence[str]) -> list[StageName]:
    """The stages in the order in which they run."""
    there = [name for name in ORDER if getattr(pipeline, name) is not None]
    for stage in stages:
        if stage not in there:
            raise PipelineError(f"--stage {stage}: the pipeline {pipeline.name} has the stages {', '.join(there)}")
    return [name for name in there if name in stages]
