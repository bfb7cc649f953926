"""Which engine is replaced, and what the deletion of each would lose."""

from dataclasses import replace
from typing import Any

import pytest

from golongrl.kubernetes.look.pods import Pod
from golongrl_operator.healing import LASTING_S, Suspect, costs, heal

NOW = 100_000.0
POD = Pod("p-0", "rollout", "Running", True, 0, "")
WELL = {"phase": "generating", "engine_version": "7"}


def picture(**fields: dict[str, str]) -> dict[str, Any]:
    services = [
        {"service": "rollout", "id": name.replace("_", "-"), "age_s": 1.0, "fields": said}
        for name, said in fields.items()
    ]
    return {"queue": {"weights": {"version": 7}, "max_staleness": 1}, "services": services}


def seen(pods: list[Pod], told: dict[str, Any] | None, since: float, kind: str, **more: Any) -> Any:
    before = {pod.name: (f"{kind}: whatever it said", since) for pod in pods}
    return heal(pods, told, before, more.get("replaced", []), more.get("most", 6), NOW)


@pytest.mark.parametrize(
    ("pod", "said", "lasting", "kind"),
    [
        (POD, WELL, 1e6, ""),
        (POD, {"phase": "quarantined", "quarantine": "it does not confirm"}, LASTING_S, "quarantined"),
        (POD, {"phase": "quarantined"}, LASTING_S - 1, ""),
        (POD, {**WELL, "engine_version": "5"}, 900, "behind"),
        (POD, {**WELL, "engine_version": "5"}, 899, ""),
        (POD, {**WELL, "engine_version": "6"}, 1e6, ""),
        (POD, {**WELL, "engine_version": ""}, 1e6, ""),
        (POD, None, LASTING_S, "silent"),
        (replace(POD, ready=False), None, 1e6, ""),
        (replace(POD, starting="is being deleted"), {"phase": "quarantined"}, 1e6, ""),
        (replace(POD, ready=False, trouble="engine ended with 1", restarts=5), None, 0, "crashing"),
        (replace(POD, ready=False, trouble="engine ended with 1", restarts=4), None, 1e6, ""),
        (replace(POD, phase="Pending", ready=False, trouble="not scheduled: no GPU"), None, 1e6, ""),
    ],
)
def test_sickness_that_lasts_is_cured_by_a_new_engine(
    pod: Pod, said: dict[str, str] | None, lasting: float, kind: str
) -> None:
    told = picture(**({} if said is None else {"p_0": said}))
    found = seen([pod], told, NOW - lasting, kind or (said or {}).get("phase", "behind"))
    assert (found.replace.reason.partition(":")[0] if found.replace else "") == kind


def test_another_sickness_begins_again() -> None:
    found = seen([POD], picture(p_0={"phase": "quarantined"}), NOW - 1e6, "silent")
    assert found.replace is None
    assert found.suspects == (Suspect("p-0", "quarantined: it does not confirm the weights", NOW),)


def test_a_silent_queue_accuses_nobody() -> None:
    assert seen([POD], None, NOW - 1e6, "silent").suspects == ()


def several(count: int, sick: int) -> tuple[list[Pod], dict[str, Any]]:
    pods = [replace(POD, name=f"p-{number}") for number in range(count)]
    said = {f"p_{number}": {"phase": "quarantined"} if number < sick else WELL for number in range(count)}
    return pods, picture(**said)


def test_one_at_a_time_and_so_many_in_an_hour() -> None:
    pods, told = several(6, 2)
    assert seen(pods, told, NOW - 400, "quarantined").replace.pod == "p-0"
    assert seen(pods, told, NOW - 400, "quarantined", replaced=[NOW - 60]).replace is None
    assert seen(pods, told, NOW - 400, "quarantined", replaced=[NOW - 200]).replace.pod == "p-0"
    spent = seen(pods, told, NOW - 400, "quarantined", replaced=[NOW - 1000, NOW - 2000], most=2)
    assert spent.replace is None
    assert "maxEngineReplacements" in spent.reason
    assert seen(pods, told, NOW - 400, "quarantined", replaced=[NOW - 4000, NOW - 5000], most=2).replace.pod == "p-0"
    assert seen(pods, told, NOW - 400, "quarantined", most=0).replace is None


def test_what_most_engines_have_at_once_is_no_sickness_of_an_engine() -> None:
    pods, told = several(4, 3)
    found = seen(pods, told, NOW - 400, "quarantined")
    assert found.replace is None
    assert found.reason.startswith("3 of 4 engines are sick at once, so the cause is not an engine: quarantined")
    # Of two, one or both may well be broken.
    pods, told = several(2, 2)
    assert seen(pods, told, NOW - 400, "quarantined").replace is not None


def test_the_engine_with_the_least_to_lose_goes_first() -> None:
    pods = [replace(POD, name=name) for name in ("a", "b", "c", "d")] + [replace(POD, name="e", ready=False)]
    told = picture(a=WELL, b=WELL, c=WELL, d={"phase": "quarantined"})
    leases = [("a", 4000), ("a", 10), ("b", 500)]
    told["queue"]["leases"] = [{"worker": name, "progress": progress} for name, progress in leases]
    lost = costs(pods, told)
    assert sorted(lost, key=lambda name: lost[name]) == ["d", "e", "c", "b", "a"]
    assert costs(pods, None) == {}
