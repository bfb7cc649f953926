"""The evaluation of a run that has succeeded: its Job, and what the Job says of itself. Pure.

Invariants:
- it begins only after the run has succeeded, and changes nothing about that: a failed evaluation does not fail the run;
- one Job for one question: another suite, argument or checkpoint is another Job, and the old one is deleted;
- an evaluation that has ended is not repeated, even after its Job was deleted; one with scores not even when its
  release is upgraded, whose Job is another one: the checkpoint may be gone by then, and the scores with it;
- other questions have other folders, because `golongrl eval run` adds no samples to those of other settings;
- suspended or without GPUs, its Job is deleted: the next one asks only what has no answer yet.
"""

import copy
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from golongrl.evaluation.report.summary import Summary, read
from golongrl.kubernetes.kinds import KUEUE_QUEUE
from golongrl.kubernetes.look.objects import conditions, holds
from golongrl.kubernetes.look.pods import Pod
from golongrl.kubernetes.rayjob import site as rayjobs
from golongrl.kubernetes.rayjob.site import Manifest, Site
from golongrl.kubernetes.values.common import LONGEST_AMOUNT
from golongrl_operator.api import RUN_LABEL, EvaluationScore, EvaluationSpec, EvaluationStatus
from golongrl_operator.build import Meaning, owned_by, run_folder
from golongrl_operator.conditions import short, stamp
from golongrl_operator.decide import RunPhase
from golongrl_operator.placement import place

Json = Mapping[str, Any]

COMPONENT: Final = "evaluation"
ENDED: Final = frozenset({"Succeeded", "Failed"})
# Hash at the end of a Job's name. The prefix is the release's name with two words, and a Job may have 63 characters.
_SUFFIX: Final = 8
_LONGEST_NAME: Final = 63


@dataclass(frozen=True)
class EvaluationPlan:
    """What to do about the evaluation of one run."""

    status: EvaluationStatus | None = None
    apply: tuple[Manifest, ...] = ()
    delete: tuple[str, ...] = ()
    """Jobs to delete."""


def job_of(site: Site, run: Manifest, meaning: Meaning, step: int | None) -> Manifest:
    """The Job: the release's, with the run's suite, weights and folder."""
    spec = meaning.spec.evaluation
    assert spec is not None
    job = copy.deepcopy(site.evaluation)
    (container,) = job["spec"]["template"]["spec"]["containers"]
    container["command"] = _command(site, run, meaning, spec, container["command"], step)
    if spec.resources is not None:
        container["resources"] = spec.resources.model_dump(exclude_defaults=True)
    place(job["spec"]["template"], spec)
    if spec.active_deadline_seconds is not None:
        job["spec"]["activeDeadlineSeconds"] = spec.active_deadline_seconds
    if spec.ttl_seconds_after_finished is not None:
        job["spec"]["ttlSecondsAfterFinished"] = spec.ttl_seconds_after_finished
    own = {RUN_LABEL: run["metadata"]["name"]}
    job["spec"]["template"]["metadata"]["labels"] |= own
    # How long it is kept is no part of the question.
    asked = {key: value for key, value in job["spec"].items() if key != "ttlSecondsAfterFinished"}
    name = _digest([run["metadata"]["uid"], asked])
    prefix = job["metadata"]["name"][: _LONGEST_NAME - _SUFFIX - 1]
    job["metadata"] |= {"name": f"{prefix}-{name}"} | ({"namespace": site.namespace} if site.namespace else {})
    if meaning.queue:
        job["metadata"]["labels"][KUEUE_QUEUE] = meaning.queue
    return owned_by(site, run, job)


def gpus_of(site: Site, meaning: Meaning) -> int:
    """GPUs of the evaluation's pod."""
    spec = meaning.spec.evaluation
    if spec is None or not site.evaluation:
        return 0
    (container,) = site.evaluation["spec"]["template"]["spec"]["containers"]
    given = container.get("resources") or {}
    if spec.resources is not None:
        given = spec.resources.model_dump()
    return gpus_in(given, site.gpu_resource)


def gpus_in(resources: Json, gpu_resource: str) -> int:
    """GPUs of a container with these requests and limits."""
    amount = str((resources.get("limits") or {}).get(gpu_resource, 0))
    return int(amount) if amount.isdecimal() and len(amount) <= LONGEST_AMOUNT else 0


def _command(
    site: Site, run: Manifest, meaning: Meaning, spec: EvaluationSpec, release: Sequence[str], step: int | None
) -> list[str]:
    """The release's command about this run. A step is named because a later run of the release writes newer weights."""
    words = list(release)
    words[3] = spec.suite
    words[words.index("--target") + 1] = f"{run_folder(site, run, meaning)}/run"
    if spec.data is not None:
        words[words.index("--data") + 1] = f"{site.store}/{spec.data}"
    asked = _digest([run["metadata"]["uid"], words, spec.args])
    words[words.index("--out") + 1] = f"{site.store}/evals/{run['metadata']['name']}/{spec.suite}-{asked}"
    if step is not None:
        at = words.index("--last")
        words[at : at + 1] = ["--step", str(step)]
    # Kubernetes would replace $(NAME) by a variable.
    return [*words, *(word.replace("$", "$$") for word in spec.args or [])]


def _digest(what: Any) -> str:
    return rayjobs.digest(json.dumps(what, sort_keys=True))[:_SUFFIX]


def _question(run: Manifest, spec: EvaluationSpec, step: int | None) -> str:
    """Of what the run itself asks, whatever its release makes of it; how long a Job is kept is no part of it."""
    asked = spec.model_dump(mode="json", exclude_unset=True, exclude={"ttl_seconds_after_finished"})
    return _digest([run["metadata"]["uid"], asked, step])


def _answered(run: Manifest, spec: EvaluationSpec, step: int | None, job: str) -> EvaluationStatus | None:
    """The end of the evaluation that the run asks for; None if it has not ended."""
    old = (run.get("status") or {}).get("evaluation") or {}
    if old.get("phase") not in ENDED:
        return None
    known, asked = EvaluationStatus.model_validate(old), _question(run, spec, step)
    if not known.question and (run["status"].get("observedGeneration") == run["metadata"].get("generation")):
        # An older operator has written it, and nobody has edited the run since.
        known = known.model_copy(update={"question": asked})
    same = known.question == asked and known.step == step and known.phase == "Succeeded"
    return known if same or known.job == job else None


def unfinished(site: Site, run: Manifest, meaning: Meaning) -> bool:
    """Whether an evaluation of the run, which has succeeded, is still to be done; a suspended one asks for nothing."""
    status = run.get("status") or {}
    if meaning.spec.evaluation is None or meaning.spec.suspend:
        return False
    step = status.get("lastCheckpoint")
    name = job_of(site, run, meaning, step)["metadata"]["name"]
    return _answered(run, meaning.spec.evaluation, step, name) is None


def plan_evaluation(
    site: Site,
    run: Manifest,
    meaning: Meaning,
    phase: RunPhase,
    step: int | None,
    jobs: Sequence[Manifest],
    pods: Sequence[Pod],
    now: datetime,
    held: str = "",
) -> EvaluationPlan:
    """What to do.

    Args:
        phase: of the run.
        step: of its last checkpoint; None if that is not known.
        jobs: evaluation Jobs of the run.
        held: why it may not run now, although it could; empty if it may.
    """
    live = {job["metadata"]["name"]: job for job in jobs if "deletionTimestamp" not in job["metadata"]}
    spec = meaning.spec.evaluation
    if spec is None or phase != RunPhase.SUCCEEDED:
        return EvaluationPlan(delete=tuple(live))
    job = job_of(site, run, meaning, step)
    name = str(job["metadata"]["name"])
    old = (run.get("status") or {}).get("evaluation") or {}
    known = EvaluationStatus.model_validate(old) if old.get("job") == name else None
    if answered := _answered(run, spec, step, name):
        kept = () if meaning.spec.deletion_policy == "Delete" else (answered.job,)
        return EvaluationPlan(answered, delete=tuple(other for other in live if other not in kept))
    others = tuple(other for other in live if other != name)
    asked = _question(run, spec, step)
    told = known or EvaluationStatus(phase="Pending", suite=spec.suite, step=step, job=name, question=asked)
    if name in live and (ended := _ended(told, live[name], pods, now)):
        return EvaluationPlan(ended, delete=others)
    why = "spec.suspend is set; set it to false to continue" if meaning.spec.suspend else held
    if why:
        phase_word = "Suspended" if meaning.spec.suspend or (known and known.started) else "Waiting"
        return EvaluationPlan(_said(told, phase_word, why), delete=tuple(live))
    if name in live:
        return EvaluationPlan(_running(told, live[name], pods), delete=others)
    if leaving := [item["metadata"]["name"] for item in jobs if item["metadata"]["name"] not in live]:
        return EvaluationPlan(_said(told, told.phase, f"waiting until Job {', '.join(leaving)} is gone"), delete=others)
    return EvaluationPlan(_said(told, "Pending", f"creating Job {name}"), (job,), others)


def _said(status: EvaluationStatus, phase: str, message: str) -> EvaluationStatus:
    return status.model_copy(update={"phase": phase, "message": short(message)})


def _running(status: EvaluationStatus, job: Manifest, pods: Sequence[Pod]) -> EvaluationStatus:
    name, state = job["metadata"]["name"], job.get("status") or {}
    began = status.model_copy(update={"started": status.started or state.get("startTime")})
    if job["spec"].get("suspend"):
        return _said(began, "Waiting", f"Job {name} is suspended: a queue has not admitted it")
    trouble = next((pod.trouble for pod in _pods(name, pods) if pod.trouble), "")
    if trouble:
        return _said(began, "Pending", f"Job {name}: {trouble}")
    if state.get("ready"):
        return _said(began, "Running", f"Job {name} asks {status.suite}")
    return _said(began, "Pending", f"Job {name} starts its pod")


def _ended(status: EvaluationStatus, job: Manifest, pods: Sequence[Pod], now: datetime) -> EvaluationStatus | None:
    """How it ended; None while it has not."""
    name, state = job["metadata"]["name"], job.get("status") or {}
    failure = conditions(job).get("Failed", {})
    started = status.started or state.get("startTime")
    ended = status.model_copy(update={"started": started, "finished": state.get("completionTime") or stamp(now)})
    mine = _pods(name, pods)
    if holds(job, "Complete"):
        words = next((read(pod.last_words) for pod in mine if pod.phase == "Succeeded"), None)
        return _scored(ended, words) if words else _said(ended, "Succeeded", _UNTOLD)
    if holds(job, "Failed"):
        said = next((pod.last_words for pod in mine if pod.phase == "Failed" and pod.last_words), "")
        last = (said.strip().splitlines() or [""])[-1]
        why = f"{failure.get('reason', 'failed')}: {failure.get('message', '')}".rstrip(": ")
        return _said(ended, "Failed", f"Job {name} failed ({why})" + (f": {last}" if last else ""))
    return None


_UNTOLD: Final = "its pod was gone before its scores were read: they are in results.json on the volume"


def _scored(status: EvaluationStatus, words: Summary) -> EvaluationStatus:
    scores = [
        EvaluationScore(
            benchmark=one.benchmark,
            score=one.score,
            error=one.stderr,
            samples=one.samples,
            expected=one.expected,
            note=one.note,
        )
        for one in words.scores
    ]
    shown = ", ".join(f"{one.benchmark} {'-' if one.score is None else one.score}" for one in scores)
    more = f", and {words.more} more" if words.more else ""
    done = _said(status, "Succeeded", f"{words.model}: {shown or 'no benchmark'}{more}")
    return done.model_copy(update={"report": words.report, "average": words.average, "scores": scores})


def _pods(job: str, pods: Sequence[Pod]) -> list[Pod]:
    """By name: a Job begins its pods' names with its own."""
    return [pod for pod in pods if pod.component == COMPONENT and pod.name.startswith(f"{job}-")]
