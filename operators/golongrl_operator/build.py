"""What a run means, and the objects that train it. Pure: the run and its release's site in, manifests out."""

import copy
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache, reduce
from typing import Any, Final

from pydantic import ValidationError

from golongrl import recipe as recipes
from golongrl.errors import InputError
from golongrl.evaluation.registry import NAMES
from golongrl.kubernetes.kinds import KUEUE_QUEUE
from golongrl.kubernetes.pod_rules import misfits, without_nulls
from golongrl.kubernetes.rayjob import site as rayjobs
from golongrl.kubernetes.rayjob.load import merge
from golongrl.kubernetes.rayjob.site import Manifest, Site
from golongrl.kubernetes.values import Values
from golongrl.recipe import Recipe
from golongrl.recipe.fields import Section
from golongrl_operator.api import ATTEMPT, CONTENT, GROUP, KIND, RESERVED, RUN_LABEL, VERSION, Spec
from golongrl_operator.placement import KEYS as PLACED
from golongrl_operator.placement import given, place

# Keys that workers and (learner.weights) NetworkPolicies take from the release's recipe, not from the run's.
_POOL_READS: Final = (
    "rollout",
    "reward",
    "queue",
    "seed",
    "model.context_length",
    "learner.weights",
    "learner.routing_replay",
)
# Keys in which a run cannot differ from the pool that generates for it, so that it gets one of its own: the checkpoints
# are of that model, the workers read their rows from that data, the engines sample with that temperature (log-probs at
# another make every ratio wrong) and answer up to that length.
_MUST_AGREE: Final = ("model.path", "data", "rollout.temperature", "rollout.max_response_tokens")
# What a run has for itself in its own folder; downloads of models and data sets are shared.
_OWN_FOLDERS: Final = "data|weights|run"
# A hash in an annotation that people compare by eye.
_CONTENT_LENGTH: Final = 16
_POOL_SUFFIX: Final = 8
# Keys of a recipe that no worker reads, but for learner.routing_replay, which is in the pods' own template: to change
# them replaces no engine.
_LEARNER_ONLY: Final = {"learner": recipes.Learner(), "algorithm": recipes.Algorithm()}


# What the chart's command of an engine takes from a recipe.
_ENGINE_FLAGS: Final = re.compile(r"--context-length \d+(?: --enable-return-routed-experts)?")


class SpecError(InputError, ValueError):
    """The spec cannot be trained; the message is one line that names the key."""


# Every pass sees every run, and most have ended, so each spec is resolved only once (16 ms of CPU, 17 KiB). With fewer
# places than runs, none would be found again, and a thousand runs would take a minute in each pass.
_REMEMBERED: Final = 4096


@dataclass(frozen=True)
class Meaning:
    """A spec, resolved."""

    spec: Spec
    recipe: Recipe
    rayjob: Manifest
    """The release's, with the run's patch; its name lacks the hash."""
    content: str
    """Hash of all that the RayJob runs: recipe, pods, scheduling."""
    differs: tuple[str, ...]
    """Keys of the recipe that the release's rollout pool reads too, with other values."""
    dedicated: str = ""
    """Why it has a pool, a queue and a folder of its own; empty if it shares the release's."""
    learner_gpus: int = 0
    queue: str = ""
    """Kueue's LocalQueue: the run's, or that of the release's RayJobs (`learner.gang`)."""
    asked: str = ""
    """Hash of what the spec itself says of the training."""


def resolve(site: Site, run: Manifest) -> Meaning:
    """What the run's spec means with its release.

    Raises:
        SpecError, ValuesError, RecipeError: a key or value is wrong, recipe and values do not fit each other, or the
            recipe and the release's rollout pool would train something that neither of them says.
    """
    return _resolve(site, json.dumps(run.get("spec", {})))


@lru_cache(maxsize=_REMEMBERED)
def _resolve(site: Site, text: str) -> Meaning:
    try:
        spec = Spec.model_validate(json.loads(text))
    except ValidationError as error:
        raise SpecError(f"spec: {recipes.explain(error, Spec)}") from error
    if wrong := next(_misfits(spec), ""):
        raise SpecError(wrong)
    # Elsewhere a recipe's name may be a path; here it would be one in the operator's own pod.
    if spec.recipe_preset and spec.recipe_preset not in recipes.packaged():
        raise SpecError(f"spec.recipePreset: {spec.recipe_preset!r} is none of {', '.join(recipes.packaged())}")
    _check_suite(site, spec)
    base = site.recipe if spec.recipe_preset is None else {}
    if spec.recipe_preset:
        base = recipes.read_tree(spec.recipe_preset)
    recipe = recipes.parse(merge(base, _with_n(spec.recipe)), origin=spec.recipe_preset or "recipe")
    pool = recipes.parse(dict(site.recipe), origin=f"release {site.release}")
    dedicated = _dedicated(spec, pool, recipe)
    job = copy.deepcopy(site.rayjob)
    for template in rayjobs.learner_templates(job):
        place(template, spec.learner)
    job = without_nulls(rayjobs.patch(job, spec.learner.model_dump(exclude=set(PLACED), exclude_unset=True)))
    queue = spec.schedule.queue or (job["metadata"].get("labels") or {}).get(KUEUE_QUEUE, "")
    if queue:
        # Learner and pool are admitted together (kueue.py), not the RayJob alone.
        job = rayjobs.patch(job, {"metadata": {"labels": {KUEUE_QUEUE: None}}})
    try:
        gpus = rayjobs.check(job, recipe, site.gpu_resource)
    except rayjobs.RayJobError as error:
        raise SpecError(f"spec.learner: {error}") from error
    differs = () if dedicated else tuple(key for place in _POOL_READS for key in _differing(pool, recipe, place))
    content = rayjobs.content(job, recipe)[:_CONTENT_LENGTH]
    own = spec.model_dump(mode="json", include={"recipe_preset", "recipe", "learner"}, exclude_unset=True)
    return Meaning(
        spec=spec,
        recipe=recipe,
        rayjob=job,
        content=content,
        differs=differs,
        dedicated=dedicated,
        learner_gpus=gpus,
        queue=queue,
        asked=rayjobs.digest(json.dumps(own, sort_keys=True))[:_CONTENT_LENGTH],
    )


def _check_suite(site: Site, spec: Spec) -> None:
    """Refuse what the Job would refuse, perhaps days later. Another image than ours may have suites of its own."""
    if spec.evaluation is None or spec.evaluation.suite in NAMES:
        return
    image = str(site.evaluation["spec"]["template"]["spec"]["containers"][0]["image"])
    if Values().evaluation.image.repository in image:
        raise SpecError(f"spec.evaluation.suite: {spec.evaluation.suite!r} is none of {', '.join(NAMES)}")


def _misfits(spec: Spec) -> Iterator[str]:
    """What the API server would refuse of the pods that the spec places, and arguments that are not the spec's."""
    for part, section in (("rollout", spec.rollout), ("learner", spec.learner), ("evaluation", spec.evaluation)):
        if section is not None:
            yield from misfits(given(section), f"spec.{part}")
    evaluation = spec.evaluation.args if spec.evaluation is not None else None
    for key, words in (("rollout.engineArgs", spec.rollout.engine_args), ("evaluation.args", evaluation)):
        for word in words or ():
            if word.partition("=")[0] in RESERVED[key]:
                yield f"spec.{key}: {word}: the chart or the operator sets this argument; remove it"
    if spec.evaluation is not None and spec.evaluation.resources is not None:
        yield from misfits({"resources": spec.evaluation.resources.model_dump()}, "spec.evaluation")


def run_id(site: Site, run: Manifest, meaning: Meaning) -> str:
    """The name of its queue in Redis."""
    return f"{site.run}.{run['metadata']['name']}" if meaning.dedicated else site.run


def objects(site: Site, run: Manifest, meaning: Meaning, attempt: int) -> list[Manifest]:
    """The ConfigMap with the recipe and the RayJob that reads it, owned by the run and named for this attempt."""
    identity = f"{run['metadata']['uid']}/{meaning.content}/{attempt}"
    made = rayjobs.documents(meaning.rayjob, meaning.recipe, site.namespace, identity)
    for item in made:
        item["metadata"].setdefault("annotations", {}).update({CONTENT: meaning.content, ATTEMPT: str(attempt)})
    for template in rayjobs.pod_templates(made[1]) if meaning.dedicated else ():
        template.setdefault("metadata", {}).setdefault("labels", {})[RUN_LABEL] = run["metadata"]["name"]
    return [_of_run(site, run, meaning, item) for item in made]


def most_engines(site: Site, spec: Spec) -> int:
    """Engines that the run may have."""
    if spec.rollout.replicas is not None:
        return spec.rollout.replicas
    return spec.rollout.max_replicas or max(spec.rollout.min_replicas or 0, site.pool.replicas)


def pool_name(site: Site, run: Manifest) -> str:
    """The workload of a pool of the run's own."""
    return f"{site.pool.name}-{rayjobs.digest(run['metadata']['uid'])[:_POOL_SUFFIX]}"


def pool(site: Site, run: Manifest, meaning: Meaning, replicas: int) -> list[Manifest]:
    """The ConfigMap and the workload of a pool of the run's own: the release's with another recipe, queue, folder."""
    spec, name = meaning.spec, pool_name(site, run)
    recipe = recipes.dump(meaning.recipe)
    work = copy.deepcopy(site.pool.workload)
    work["metadata"] |= {"name": name} | ({"namespace": site.namespace} if site.namespace else {})
    work["spec"]["replicas"] = replicas
    own = {RUN_LABEL: run["metadata"]["name"]}
    if "selector" in work["spec"]:
        work["spec"]["selector"]["matchLabels"] |= own
    for template in workload_templates(work):
        template["metadata"]["labels"] |= own
        read = rayjobs.digest(recipes.dump(meaning.recipe.model_copy(update=_LEARNER_ONLY)))
        template["metadata"].setdefault("annotations", {})["checksum/recipe"] = read
        place(template, spec.rollout)
        for volume in template["spec"].get("volumes", []):
            if volume["name"] == "recipe":
                volume["configMap"] = {"name": name}
        for container in [*template["spec"].get("initContainers", []), *template["spec"]["containers"]]:
            if container["name"] == "engine":
                # Kubernetes would replace $(NAME) by a variable.
                more = [word.replace("$", "$$") for word in spec.rollout.engine_args or []]
                args = [*container["args"], *more]
                own_flags = _engine_flags(meaning.recipe)
                container["args"] = [_ENGINE_FLAGS.sub(own_flags, text) for text in args]
            for mount in container.get("volumeMounts", []) if container["name"] == "worker" else ():
                # Its copy of the weights may be there too, in a folder of its own.
                if mount["name"] == "store" and "subPath" not in mount:
                    mount["readOnly"] = not meaning.recipe.learner.routing_replay
            for entry in container.get("env", []):
                if entry["name"] == "GOLONGRL_REWARD_URL" and spec.reward.url:
                    entry["value"] = spec.reward.url.replace("$", "$$")
    metadata = {key: copy.deepcopy(value) for key, value in work["metadata"].items() if key != "annotations"}
    config = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": {"recipe.yaml": recipe}}
    made = [_of_run(site, run, meaning, item) for item in (config, work)]
    # Without the number of engines, which changes more often than what they run.
    text = json.dumps([{**made[1]["spec"], "replicas": 0}, recipe], sort_keys=True)
    made[1]["metadata"].setdefault("annotations", {})[CONTENT] = rayjobs.digest(text)[:_CONTENT_LENGTH]
    return made


def _engine_flags(recipe: Recipe) -> str:
    routes = " --enable-return-routed-experts" if recipe.learner.routing_replay else ""
    return f"--context-length {recipe.model.context_length}{routes}"


def _of_run(site: Site, run: Manifest, meaning: Meaning, item: Manifest) -> Manifest:
    item = owned_by(site, run, item)
    return _moved(site, run, meaning, item) if meaning.dedicated else item


def owned_by(site: Site, run: Manifest, item: Manifest) -> Manifest:
    """With what every object of a run has: labels, by which the operator finds it again, and its owner."""
    metadata = run["metadata"]
    item["metadata"]["labels"] |= {RUN_LABEL: metadata["name"], "app.kubernetes.io/instance": site.release}
    item["metadata"]["ownerReferences"] = [
        {
            "apiVersion": f"{GROUP}/{VERSION}",
            "kind": KIND,
            "name": metadata["name"],
            "uid": metadata["uid"],
            "controller": True,
        }
    ]
    return item


def run_folder(site: Site, run: Manifest, meaning: Meaning) -> str:
    """Where its checkpoints, weights and data are: the release's folder, or one of its own."""
    return f"{site.store}/runs/{run['metadata']['name']}" if meaning.dedicated else site.store


def _moved(site: Site, run: Manifest, meaning: Meaning, item: Manifest) -> Manifest:
    """The object with the run's own queue and folder in place of the release's."""
    folder = re.compile(rf"{re.escape(site.store)}/({_OWN_FOLDERS})(?![\w-])")
    own = run_folder(site, run, meaning)

    def move(node: Any) -> Any:
        if isinstance(node, dict):
            if node.get("name") == "GOLONGRL_RUN" and "value" in node:
                return {**node, "value": run_id(site, run, meaning)}
            return {key: move(value) for key, value in node.items()}
        if isinstance(node, list):
            return [move(entry) for entry in node]
        return folder.sub(rf"{own}/\1", node) if isinstance(node, str) else node

    # The recipe is the person's, and names files where they are.
    moved = {key: move(value) for key, value in item.items() if key == "spec"}
    return {**item, **moved}


def workload_templates(work: Manifest) -> list[Manifest]:
    """The pod templates of a Deployment or LeaderWorkerSet."""
    group = work["spec"].get("leaderWorkerTemplate")
    return [work["spec"]["template"]] if group is None else [group["leaderTemplate"], group["workerTemplate"]]


def _with_n(recipe: Mapping[str, Any]) -> Mapping[str, Any]:
    """kubectl's YAML reader takes an unquoted `n:` (recipe.rollout.n) for the boolean false."""
    rollout = recipe.get("rollout")
    if not isinstance(rollout, Mapping) or "false" not in rollout:
        return recipe
    rest = {key: value for key, value in rollout.items() if key != "false"}
    return {**recipe, "rollout": {**rest, "n": rollout["false"]}}


def _dedicated(spec: Spec, pool: Recipe, recipe: Recipe) -> str:
    """Why the run needs a pool of its own; empty if the release's will do."""
    asked = {
        "rollout.dedicated": spec.rollout.dedicated,
        "rollout.engineArgs": spec.rollout.engine_args,
        **{f"rollout.{key}": value for key, value in given(spec.rollout).items()},
        "reward.url": spec.reward.url,
    }
    why = [f"spec.{key} is set" for key, value in asked.items() if value]
    # Rows are built from the seed if there is a corpus.
    places = [*_MUST_AGREE, *(["seed"] if recipe.data.corpus else [])]
    # How often the rows are gone through is not what they are.
    keys = [key for place in places for key in _differing(pool, recipe, place) if key != "data.epochs"]
    return ", ".join([*why, *(f"{key} differs from the release's" for key in keys)])


def _differing(pool: Recipe, recipe: Recipe, place: str) -> list[str]:
    """Keys at or under a place that the two have otherwise."""
    one, other = _at(pool, place), _at(recipe, place)
    if isinstance(one, Section):
        keys = [f"{place}.{name}" for name in type(one).model_fields]
        return [key for key in keys if _at(pool, key) != _at(recipe, key)]
    return [] if one == other else [place]


def _at(recipe: Recipe, key: str) -> object:
    return reduce(getattr, key.split("."), recipe)
