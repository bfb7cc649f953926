"""From an engine's answers and their scores to the group that the learner gets. Pure.

Invariant: a token whose weights the worker did not put into the engine never gets into a group.
"""

import reprlib
from collections.abc import Iterable, Mapping, Sequence

from golongrl.data.prepared import PreparedRow
from golongrl.queue import Group, Lease, Response, VersionSpan
from golongrl.queue.submission import MOST_REASON
from golongrl.reward.models import ScoreResult
from golongrl.rollout.sglang.answers import Generation
from golongrl.rollout.sglang.errors import EngineError
from golongrl.routes.groups import GroupRoutes
from golongrl.routes.reference import RoutesReference

# No version has more: they are steps of a run.
_MOST_DIGITS = 15


class ForeignWeightsError(EngineError):
    """Tokens come from weights this worker did not put there: the engine was restarted, or another worker uses it."""


def group_of(
    lease: Lease,
    row: PreparedRow,
    responses: Iterable[Response],
    timings: Mapping[str, float],
    moments: Mapping[str, float] | None = None,
    routes: RoutesReference | None = None,
) -> Group:
    """The group that the worker holding `lease` made of the leased `row`."""
    return Group(
        uid=lease.uid,
        row=lease.row,
        epoch=lease.epoch,
        task=row.task,
        metric=row.metric,
        task_key=row.task_key,
        reward_mode=row.reward_mode,
        prompt_ids=row.prompt_ids,
        responses=tuple(responses),
        worker=lease.worker,
        engine_version=lease.engine_version,
        timings=dict(timings),
        moments=dict(moments or {}),
        routes=routes,
    )


def group_routes(answers: Sequence[Generation], prompt_tokens: int, experts: int) -> GroupRoutes:
    """The routes of a row's answers, each of which has some; the first one has the prompt's too."""
    first, *others = (answer.routes for answer in answers if answer.routes is not None)
    return GroupRoutes(first[:prompt_tokens], (first[prompt_tokens:], *others), experts)


def version_spans(answer: Generation, oldest: int, newest: int | None) -> tuple[VersionSpan, ...]:
    """The versions of an answer's tokens as numbers, within what the worker confirmed while it was sampled.

    Raises:
        ForeignWeightsError: a token's version is no policy version, or one that was not adopted in that time.
    """
    spans = []
    for span in answer.spans:
        version = int(span.version) if span.version.isdecimal() and len(span.version) <= _MOST_DIGITS else -1
        if newest is None or not oldest <= version <= newest:
            shown = reprlib.repr(span.version)
            raise ForeignWeightsError(f"{answer.rid}: tokens {span.start}..{span.end} are from weights {shown}")
        spans.append(VersionSpan(version, span.start, span.end))
    return tuple(spans)


def response(answer: Generation, spans: tuple[VersionSpan, ...], result: ScoreResult) -> Response:
    """One response of a group."""
    return Response(
        ids=answer.ids,
        logprobs=answer.logprobs,
        version_spans=spans,
        finish_reason=answer.finish,
        reward=result.score,
        status=result.status,
        reason=(result.reason or "").encode("utf-8", "replace").decode("utf-8")[:MOST_REASON],
    )
