"""The run's conditions, as `kubectl wait --for=condition=Complete` reads them. Pure."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final, Literal

from golongrl_operator.api import Condition, EvaluationStatus
from golongrl_operator.decide import RunDecision, RunPhase

# A longer message would be a log.
_LONGEST: Final = 1024
# Usually enough to start nodes, pull images and load weights: what lasts longer is reported.
LASTING_S: Final = 300.0
STAYS_BLOCKED: Final = "StaysBlocked"
STAYS_SILENT: Final = "StaysSilent"
_PROGRESSING: Final = frozenset({RunPhase.PENDING, RunPhase.RUNNING, RunPhase.REPLACING, RunPhase.RESTARTING})

# Reasons that change to another one if they last.
_LASTING: Final = {"Blocked": STAYS_BLOCKED, "QueueSilent": STAYS_SILENT}

# Status, reason, message.
Aspect = tuple[Literal["True", "False", "Unknown"], str, str]


def stamp(now: datetime) -> str:
    """A time as Kubernetes writes it: UTC, whole seconds."""
    return now.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def seconds_since(time: str, now: datetime) -> float:
    """How long ago Kubernetes' time was."""
    return (now - datetime.fromisoformat(time)).total_seconds()


def short(message: str) -> str:
    """Cut to the length of a condition's message."""
    return message if len(message) <= _LONGEST else f"{message[: _LONGEST - 3]}..."


def conditions(
    decision: RunDecision,
    generation: int,
    stuck: Sequence[str],
    silence: str,
    old: Sequence[Mapping[str, Any]],
    now: datetime,
    differs: Sequence[str] = (),
    error: str = "",
    stalled: Sequence[str] = (),
    evaluation: EvaluationStatus | None = None,
    evaluates: bool = False,
    admitted: Aspect | None = None,
) -> list[Condition]:
    """Accepted, Progressing, Stuck, Stalled, Complete, Failed; a condition keeps its time while its status stays.

    Args:
        stuck: what stops the loop.
        silence: why the queue did not answer; empty if it answered.
        old: the conditions of the last pass.
        differs: the keys in which the rollout pool differs from the run's recipe.
        error: why the spec cannot be trained; empty if it can.
        stalled: who waits for whom, up to the process from which nothing comes.
        evaluation: what is known of the evaluation.
        evaluates: the spec asks for one; then there is a condition Evaluated too.
        admitted: what Kueue says; None without a queue of Kueue.
    """
    since = {entry["type"]: (entry["status"], entry["lastTransitionTime"]) for entry in old}

    def condition(kind: str, aspect: Aspect) -> Condition:
        status, reason, message = aspect
        was, time = since.get(kind, ("", ""))
        return Condition(
            type=kind,
            status=status,
            reason=reason,
            message=short(message),
            last_transition_time=time if was == status else stamp(now),
            observed_generation=generation,
        )

    phase, message = decision.phase, decision.message
    held, stuck_since = since.get("Stuck", ("", ""))
    aspect = _stuck(phase, stuck, silence)
    if held == aspect[0] and aspect[1] in _LASTING and seconds_since(stuck_since, now) >= LASTING_S:
        aspect = (aspect[0], _LASTING[aspect[1]], aspect[2])
    return [
        condition("Accepted", _accepted(error, differs)),
        condition("Progressing", (_word(phase in _PROGRESSING), phase.value, message)),
        condition("Stuck", aspect),
        condition("Stalled", _stalled(phase, stalled, silence)),
        condition("Complete", (_word(phase == RunPhase.SUCCEEDED), phase.value, message)),
        condition("Failed", (_word(phase == RunPhase.FAILED), phase.value, message)),
        *([condition("Admitted", admitted)] if admitted else []),
        *([condition("Evaluated", _evaluated(phase, evaluation))] if evaluates else []),
    ]


def _evaluated(phase: RunPhase, evaluation: EvaluationStatus | None) -> Aspect:
    if evaluation is None:
        return "False", "RunFailed" if phase == RunPhase.FAILED else "RunNotComplete", ""
    return _word(evaluation.phase == "Succeeded"), evaluation.phase, evaluation.message


def _accepted(error: str, differs: Sequence[str]) -> Aspect:
    if error:
        return "False", "InvalidSpec", error
    if differs:
        keys = ", ".join(differs)
        return (
            "True",
            "PoolDiffers",
            f"the rollout pool keeps the release's {keys}; change them by a helm upgrade",
        )
    return "True", "Valid", ""


def _stuck(phase: RunPhase, stuck: Sequence[str], silence: str) -> Aspect:
    told = "; ".join(stuck)
    if phase == RunPhase.RUNNING and silence:
        return "Unknown", "QueueSilent", told
    return ("True", "Blocked", told) if stuck else ("False", "Moving", "")


def _stalled(phase: RunPhase, stalled: Sequence[str], silence: str) -> Aspect:
    if phase == RunPhase.RUNNING and silence:
        return "Unknown", "QueueSilent", silence
    return ("True", "NoAnswer", "; ".join(stalled)) if stalled else ("False", "Answering", "")


def _word(holds: bool) -> Literal["True", "False"]:
    return "True" if holds else "False"
