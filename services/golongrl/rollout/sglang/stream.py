"""What an engine sends in answer to one `/generate`: read within bounds, whole or as a stream of events.

Invariants: an answer never takes more memory than one of its tokens and routes could; the last payload is the answer,
and those before it are its progress.
"""

from collections.abc import AsyncIterator, Mapping

import httpx

from golongrl.rollout.sglang.answers import Generation, RoutesAsked, parse_generation, parse_json, refusal
from golongrl.rollout.sglang.errors import EngineProtocolError
from golongrl.rollout.sglang.http import failure, read_bounded

# A stream's chunks repeat everything so far, so its bytes grow with the number of chunks; at 16 the whole stream is
# about 8 times the final answer, and progress is still seen every sixteenth of the longest response.
_CHUNKS = 16
# Most bytes of an answer, without its tokens and for each token: its id twice, its log-prob, its text twice escaped.
_ANSWER_BYTES = 1 << 20
_TOKEN_BYTES = 1 << 10
# Reading more takes longer than other requests of the loop should wait: the routes of a long prompt are 300 MB.
LONG_BYTES = 1 << 22


def interval(most_tokens: int) -> dict[str, int]:
    """The sampling parameter that says how often a stream has a chunk."""
    return {"stream_interval": max(1, most_tokens // _CHUNKS)}


def most_bytes(most_tokens: int, routes: RoutesAsked | None) -> int:
    """Bytes of the longest answer with so many tokens."""
    return _ANSWER_BYTES + most_tokens * _TOKEN_BYTES + (0 if routes is None else routes.most_bytes(most_tokens))


async def events(response: httpx.Response, most: int) -> AsyncIterator[bytes]:
    """The payloads of a server-sent event stream, each of at most `most` bytes.

    Not httpx's line iterator: it also splits at U+2028 and U+0085, which JSON may hold unescaped.

    Raises:
        EngineProtocolError: a payload, or the whole stream, is longer.
    """
    # The line so far, in parts: joined for each chunk, a long line would be copied as often as it has chunks.
    tail: list[bytes] = []
    held = seen = 0
    async for chunk in response.aiter_bytes():
        seen += len(chunk)
        first, *others = chunk.split(b"\n")
        lines = [] if not others else [b"".join([*tail, first]), *others[:-1]]
        if others:
            tail, held = [others[-1]], len(others[-1])
        else:
            tail.append(first)
            held += len(first)
        if max(held, *map(len, lines), 0) > most or seen > most * 2 * _CHUNKS:
            raise EngineProtocolError(f"POST /generate: an answer of more than {most} bytes")
        for line in lines:
            if line.startswith(b"data:") and line != b"data: [DONE]":
                yield line[5:]


async def whole(response: httpx.Response, most: int) -> AsyncIterator[bytes]:
    """An answer that is no stream: one payload."""
    yield await read_bounded(response, most)


def generation_of(event: bytes, rid: str, vocab_size: int, routes: RoutesAsked | None) -> Generation:
    """The response that the last payload holds.

    Raises:
        EngineError: it is a failure, or cannot be used.
    """
    if not event:
        raise EngineProtocolError(f"generate {rid}: the stream ended without an answer")
    body = parse_json(event, f"generate {rid}")
    if "error" in body:  # a streamed request was found wrong after the 200 was sent
        code = body["error"].get("code") if isinstance(body["error"], Mapping) else None
        raise failure(
            "POST /generate",
            code if isinstance(code, int) and 400 <= code < 600 else 400,
            event.decode(errors="replace"),
        )
    if (refused := refusal(body)) is not None:
        raise failure("POST /generate", *refused)
    return parse_generation(body, rid, vocab_size, routes)
