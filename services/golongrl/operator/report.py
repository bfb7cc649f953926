"""The run's conditions, as `kubectl wait --for=condition=Complete` reads them. Pure."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final, Literal

from golongrl.operator.decide import Decision, Phase
from golongrl.operator.model import Condition

# Beyond this a message is a log.
_LONGEST: Final = 1024
_PROGRESSING: Final = frozenset({Phase.PENDING, Phase.RUNNING, Phase.REPLACING, Phase.RESTARTING})

# Status, reason, message.
_Aspect = tuple[Literal["True", "False", "Unknown"], str, str]


def stamp(now: datetime) -> str:
    """A time as Kubernetes writes it: UTC, whole seconds."""
    return now.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def conditions(
    decision: Decision,
    generation: int,
    stuck: Sequence[str],
    silence: str,
    old: Sequence[Mapping[str, Any]],
    now: datetime,
    differs: Sequence[str] = (),
) -> list[Condition]:
    """Accepted, Progressing, Stuck, Complete, Failed; a condition keeps its time while its status stays.

    Args:
        stuck: what holds the loop up.
        silence: why the queue did not answer; empty if it did.
        old: the conditions of the last pass.
        differs: what the rollout pool has otherwise than the run's recipe.
    """
    since = {entry["type"]: (entry["status"], entry["lastTransitionTime"]) for entry in old}

    def condition(kind: str, aspect: _Aspect) -> Condition:
        status, reason, message = aspect
        was, time = since.get(kind, ("", ""))
        return Condition(
            type=kind,
            status=status,
            reason=reason,
            message=message[:_LONGEST],
            last_transition_time=time if was == status else stamp(now),
            observed_generation=generation,
        )

    phase, message = decision.phase, decision.message
    return [
        condition("Accepted", _accepted(decision, differs)),
        condition("Progressing", (_word(phase in _PROGRESSING), phase.value, message)),
        condition("Stuck", _stuck(phase, stuck, silence)),
        condition("Complete", (_word(phase == Phase.SUCCEEDED), phase.value, message)),
        condition("Failed", (_word(phase == Phase.FAILED), phase.value, message)),
    ]


def _accepted(decision: Decision, differs: Sequence[str]) -> _Aspect:
    if decision.phase == Phase.INVALID:
        return "False", "InvalidSpec", decision.message
    if differs:
        keys = ", ".join(differs)
        return "True", "PoolDiffers", f"the rollout pool keeps the release's {keys}: change them by a helm upgrade"
    return "True", "Valid", ""


def _stuck(phase: Phase, stuck: Sequence[str], silence: str) -> _Aspect:
    told = "; ".join(stuck)
    if phase == Phase.RUNNING and silence:
        return "Unknown", "QueueSilent", told
    return ("True", "Blocked", told) if stuck else ("False", "Moving", "")


def _word(holds: bool) -> Literal["True", "False"]:
    return "True" if holds else "False"
