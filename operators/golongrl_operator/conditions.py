"""The run's conditions, as `kubectl wait --for=condition=Complete` reads them. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
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
# Why objects are not written.
REFUSED: Final = "Refused"
NO_ANSWER: Final = "NoAnswer"
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


@dataclass(frozen=True)
class Signs:
    """What a pass saw of a run, apart from its phase."""

    error: str = ""
    """Why the spec cannot be trained; empty if it can."""
    differs: Sequence[str] = ()
    """The keys in which the rollout pool differs from the run's recipe."""
    stuck: Sequence[str] = ()
    """What stops the loop."""
    silence: str = ""
    """Why the queue did not answer; empty if it answered."""
    stalled: Sequence[str] = ()
    """Who waits for whom, up to the process from which nothing comes."""
    evaluates: bool = False
    """The spec asks for an evaluation; then there is a condition Evaluated."""
    evaluation: EvaluationStatus | None = None
    admitted: Aspect | None = None
    """What Kueue says; None without a queue of Kueue."""


def conditions(
    decision: RunDecision, signs: Signs, generation: int, old: Sequence[Mapping[str, Any]], now: datetime
) -> list[Condition]:
    """Accepted, Progressing, Stuck, Stalled, Complete, Failed; a condition keeps its time while its status stays.

    Args:
        generation: of the spec that was read.
        old: the conditions of the last pass.
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
    aspect = _stuck(phase, signs.stuck, signs.silence)
    if held == aspect[0] and aspect[1] in _LASTING and seconds_since(stuck_since, now) >= LASTING_S:
        aspect = (aspect[0], _LASTING[aspect[1]], aspect[2])
    return [
        condition("Accepted", _accepted(signs.error, signs.differs)),
        condition("Progressing", (_word(phase in _PROGRESSING), phase.value, message)),
        condition("Stuck", aspect),
        condition("Stalled", _stalled(phase, signs.stalled, signs.silence)),
        condition("Complete", (_word(phase == RunPhase.SUCCEEDED), phase.value, message)),
        condition("Failed", (_word(phase == RunPhase.FAILED), phase.value, message)),
        *([condition("Admitted", signs.admitted)] if signs.admitted else []),
        *([condition("Evaluated", _evaluated(phase, signs.evaluation))] if signs.evaluates else []),
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
