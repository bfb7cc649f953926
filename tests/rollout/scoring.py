"""A metric for a model that speaks gibberish: the reward service's workers import it by name."""

from typing import Any

from golongrl.tasks import Outcome


def by_length(
    data_source: str, response: str, ground_truth: Any, extra_info: dict[str, Any], mode: str = "compat"
) -> Outcome:
    """Half a point for an even number of characters, so that a group of several responses hardly ever agrees;
    responses of a row that says so are unscored."""
    if extra_info.get("unscored"):
        return Outcome(score=None, status="unscored", metric="EM", task="T1", reason="asked for")
    return Outcome(score=len(response) % 7 / 7, status="scored", metric="EM", task="T1", reason=None)
