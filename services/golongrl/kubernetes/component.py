"""One optional component of the chart with what it needs in addition, as YAML for `kubectl apply`.

helm renders the chart's templates, so that these objects are those that the component's `enabled` creates.
"""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final

from golongrl import recipe as recipes
from golongrl import yaml_text
from golongrl.kubernetes.helm import template
from golongrl.kubernetes.names import check_names
from golongrl.kubernetes.rayjob.load import load_values, overlay, read_trees
from golongrl.kubernetes.rayjob.render import chart

_COMPONENT: Final = "app.kubernetes.io/component"
# Components that a section makes in addition to its own.
_WITH: Final = {"construction": ("passrate",)}


def component_yaml(
    component: str,
    chosen: Mapping[str, Any],
    release: str,
    namespace: str,
    files: Iterable[Path],
    settings: Iterable[str],
) -> str:
    """The objects of the chart's section `component`, switched on.

    Args:
        chosen: values of the section, which precede those of files and settings.

    Raises:
        InputError: a file, a key or a value is wrong, or Helm or Kubernetes would refuse a name.
        HelmError: helm is missing or refuses.
    """
    check_names(release, namespace, new=True)
    given = read_trees(files, first={component: dict(chosen)})
    load_values(overrides=given)
    given = overlay(given, {component: {"enabled": True}})
    command = [release, str(chart()), "--namespace", namespace or "default", "--values", "-"]
    command += [word for item in settings for word in ("--set", item)]
    wanted = {component, *_WITH.get(component, ())}
    rendered = template(command, recipes.plain_json(given, "values"))
    objects = [found for found in rendered if _component(found) in wanted]
    if not namespace:
        for found in objects:
            found["metadata"].pop("namespace", None)
    return yaml_text.dump_all(objects)


def _component(found: dict[str, Any]) -> str | None:
    label: str | None = (found["metadata"].get("labels") or {}).get(_COMPONENT)
    return label
