"""`golongrl render rayjob`: the chart's RayJob for one recipe, and the ConfigMap with that recipe, for `kubectl apply`.

helm renders the chart's template, so that this RayJob is the one that an installation has.
"""

from collections.abc import Iterable, Mapping
from importlib import resources
from pathlib import Path
from typing import Any, Final

from golongrl import recipe as recipes
from golongrl import yaml_text
from golongrl.kubernetes.helm import answers, template
from golongrl.kubernetes.names import check_names
from golongrl.kubernetes.rayjob.load import load_values, merge, overlay, read_trees
from golongrl.kubernetes.rayjob.site import Site, content, documents, read_site
from golongrl.kubernetes.values import Values
from golongrl.recipe import Recipe

ADOPT_LABEL: Final = "golongrl.io/run"

_HEADER: Final = """\
# The recipe {recipe} as a RayJob, for `kubectl apply --server-side -f`, next to the release {release!r}:
#   helm install {release} charts/golongrl{arguments} --set learner.enabled=false
# That release provides Redis, the reward service, the rollout pool and the shared volume. Its rollout pool uses the
# release's own recipe: `rollout`, `reward` and `queue` must be the same in both.
# The cluster needs KubeRay 1.7.
"""


def chart() -> Path:
    """The chart's folder: inside the installed package, or in the working tree."""
    packaged = Path(str(resources.files("golongrl.kubernetes") / "chart"))
    return packaged if packaged.is_dir() else Path(__file__).parents[4] / "charts" / "golongrl"


def preset(recipe: str) -> Path | None:
    """The chart's values file for a packaged recipe: values-NAME.yaml, where the recipe's name is NAME or NAME-...

    The longest NAME is chosen; None if there is no such file, or the recipe is not a packaged one.
    """
    if recipe not in recipes.packaged():
        return None
    parts = recipe.split("-")
    names = ["-".join(parts[:end]) for end in range(len(parts), 0, -1)]
    paths = (chart() / f"values-{name}.yaml" for name in names)
    return next((path for path in paths if path.is_file()), None)


def resolve(name: str, given: Mapping[str, Any], overrides: Iterable[str] = ()) -> tuple[Recipe, Values]:
    """The recipe `name` with what values and `--set` change, and those values checked.

    Raises:
        ValuesError, RecipeError: a key or a value is wrong.
    """
    values = load_values(overrides=given)
    tree = merge(recipes.read_tree(name), values.recipe)
    for item in overrides:
        recipes.override(tree, item)
    return recipes.parse(tree, origin=name), values


def site_of(recipe: Recipe, given: Mapping[str, Any], release: str, namespace: str) -> Site:
    """What helm makes of the chart with these values and this recipe.

    Raises:
        HelmError: helm is missing, or the chart refuses the values.
    """
    # The document is the operator's; the RayJob in it is the same whether or not the release has one.
    forced = {
        "operator": {"enabled": True},
        "learner": {"enabled": True, "mode": "rayjob"},
        "recipePreset": "",
    }
    tree = overlay(given, forced) | {"recipe": recipe.model_dump(mode="json")}
    command = [release, str(chart()), "--namespace", namespace or "default"]
    command += ["--show-only", "templates/operator/release.yaml", "--values", "-"]
    found = template(command, recipes.plain_json(tree, "values"))[0]
    with answers("helm template"):
        text = found["data"]["release.json"]
    return read_site(text, "helm template", release, namespace)


def rayjob_yaml(
    name: str, release: str, namespace: str = "", files: Iterable[Path] = (), overrides: Iterable[str] = ()
) -> str:
    """ConfigMap and RayJob as YAML, under a header that says how to install the release that they need.

    Args:
        name: of a packaged recipe, or a recipe file.
        namespace: empty leaves it to kubectl.

    Raises:
        InputError: a file, a key or a value is wrong, or Helm or Kubernetes would refuse a name.
        HelmError: helm is missing or refuses.
    """
    check_names(release, namespace, new=True)
    files = list(files)
    own = preset(name)
    given = read_trees([*([own] if own else []), *files])
    recipe, values = resolve(name, given, overrides)
    site = site_of(recipe, given, release, namespace)
    job = site.rayjob
    # By this an operator of the release knows that the RayJob uses its pool.
    job["metadata"]["labels"][ADOPT_LABEL] = site.run
    arguments = [f" -f {path}" for path in [*([f"charts/golongrl/{own.name}"] if own else []), *files]]
    if name in recipes.packaged() and values.recipe_preset != name:
        arguments.append(f" --set recipePreset={name}")
    if namespace:
        arguments.append(f" -n {namespace}")
    header = _HEADER.format(recipe=recipe.name, release=release, arguments="".join(arguments))
    return header + "---\n" + yaml_text.dump_all(documents(job, recipe, namespace, content(job, recipe)))
