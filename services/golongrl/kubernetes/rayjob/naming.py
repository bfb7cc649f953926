"""Names and labels of a release's objects: the chart's rules (`templates/common/_names.tpl`) in Python.

Invariant: for the same release and values both give the same names (tests/charts compares them).
"""

import hashlib
import re
from dataclasses import dataclass
from typing import Final

from golongrl.kubernetes.values import Values
from golongrl.kubernetes.values.common import Image

CHART: Final = "golongrl"
# Chart.yaml's appVersion, the tag of images that name none.
APP_VERSION: Final = "0.1.0"
# Leaves room for "-learner-" and eight characters of a hash under KubeRay's limit of 47 for a RayJob.
_LONGEST: Final = 30


@dataclass(frozen=True)
class Release:
    """Which Helm release the objects belong to; an empty namespace is whatever `kubectl -n` says."""

    name: str = CHART
    namespace: str = "default"


def fullname(release: Release, values: Values) -> str:
    """The prefix of every object's name: a DNS-1035 label of at most 30 characters."""
    name = (values.name_override or CHART)[:30].rstrip("-")
    full = values.fullname_override or (release.name if name in release.name else f"{release.name}-{name}")
    full = full.replace(".", "-")
    if re.match(r"[0-9]", full):
        full = f"g{full}"
    if len(full) > _LONGEST:
        full = f"{full[:21].removesuffix('-')}-{hashlib.sha256(full.encode()).hexdigest()[:8]}"
    return full


def component_labels(release: Release, values: Values, component: str, own: dict[str, str]) -> dict[str, str]:
    """Labels of a component's pods; `own` are those of its placement."""
    return {
        "app.kubernetes.io/name": (values.name_override or CHART)[:30].rstrip("-"),
        "app.kubernetes.io/instance": release.name,
        "app.kubernetes.io/component": component,
        "app.kubernetes.io/part-of": CHART,
        **values.common_labels,
        **own,
    }


def image(values: Values, image: Image) -> str:
    """The reference of an image."""
    registry = values.global_.image_registry or image.registry
    prefix = f"{registry}/" if registry else ""
    suffix = f"@{image.digest}" if image.digest else f":{image.tag or APP_VERSION}"
    return f"{prefix}{image.repository}{suffix}"


def run(release: Release, values: Values) -> str:
    """The run's name, the prefix of its Redis keys."""
    return values.run or release.name


def store(values: Values) -> str:
    """The release's folder on the shared volume."""
    return f"/store/{values.storage.folder}" if values.storage.folder else "/store"


def claim(release: Release, values: Values) -> str:
    """The claim of the shared volume."""
    return values.storage.existing_claim or f"{fullname(release, values)}-store"


def auth_secret(release: Release, values: Values) -> str:
    """The Secret with the release's password and tokens."""
    return values.auth.existing_secret or f"{fullname(release, values)}-auth"


def service_account(release: Release, values: Values, component: str) -> str:
    """The component's ServiceAccount."""
    return f"{fullname(release, values)}-{component}" if values.service_account.create else "default"


def redis_url(release: Release, values: Values) -> str:
    """Address of the sample queue, without the password."""
    external = values.redis.external
    if external.host:
        return f"redis{'s' if external.tls else ''}://{external.host}:{external.port}/{external.database}"
    return f"redis://{fullname(release, values)}-redis:6379/0"
