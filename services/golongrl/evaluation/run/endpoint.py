"""What an OpenAI-compatible server says about itself: its model, its context, where its weights lie."""

import asyncio
import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import httpx

from golongrl import bounded_http
from golongrl.errors import url_without_secret
from golongrl.evaluation.errors import EvaluationError
from golongrl.header_keys import environment_key
from golongrl.meanwhile import meanwhile

# The list of models costs the endpoint nothing; one that is busy still answers within this.
_DEADLINE_S: Final = 30.0
# A wait for it is told after so long.
_SAY_S: Final = 5.0


@dataclass(frozen=True, slots=True)
class Served:
    """A model at an endpoint. `context` and `folder` are None where the server does not tell, or tells no folder."""

    url: str
    model: str
    context: int | None = None
    folder: Path | None = None


def base(url: str) -> str:
    """As OpenAI clients write it: ending in /v1.

    Raises:
        EvaluationError: it has a password or key in it.
    """
    try:
        url = url_without_secret(url).rstrip("/")
    except ValueError as error:
        raise EvaluationError(str(error)) from None
    return url if re.search(r"/v\d+\w*$", url) else f"{url}/v1"


async def served(url: str, model: str | None, key_variable: str, option: str, say: Callable[[str], None]) -> Served:
    """The model called `model` at an endpoint, or the only one it has; `say` is told of a long wait.

    Raises:
        EvaluationError: the server does not answer, refuses the key, or has no such model, or several.
    """
    key = environment_key(key_variable)
    headers = {"authorization": f"Bearer {key}"} if key else {}
    try:
        async with (
            meanwhile(_told(f"waiting for an answer from {url}/models, up to {_DEADLINE_S:g} s", say)),
            bounded_http.client(url, timeout=_DEADLINE_S, headers=headers) as http,
        ):
            answer = await bounded_http.get(http, f"{url}/models", _DEADLINE_S)
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        said = f"{error or type(error).__name__}{bounded_http.by_proxy(url)}"
        raise EvaluationError(f"{url}: the server does not answer: {said}") from error
    if answer.status_code in (401, 403):
        raise EvaluationError(f"{url}: the server refuses the key (HTTP {answer.status_code}); set {key_variable}")
    cards = _cards(answer)
    if model is None:
        if not cards:
            found = "no list of models" if answer.is_success else f"HTTP {answer.status_code}"
            raise EvaluationError(
                f"{url}/models: the server answers with {found}; see whether it is up and its OpenAI API is there. "
                f"If it serves models without listing them, give {option} NAME"
            )
        if len(cards) != 1:
            names = ", ".join(str(card.get("id")) for card in cards[:10])
            raise EvaluationError(f"{url}: give {option} NAME, one of the models it serves ({names})")
        model = str(cards[0]["id"])
    card = next((card for card in cards if card.get("id") == model), {})
    if cards and not card:
        raise EvaluationError(f"{url}: no model {model}; it serves {', '.join(str(card['id']) for card in cards[:10])}")
    context = card.get("max_model_len")
    return Served(url, model, context if type(context) is int and context > 0 else None, _folder(card.get("root")))


def _folder(root: object) -> Path | None:
    """The model's folder as the server names it, where it is one that we can read."""
    # `Path.is_file` raises where another user's folder, or no path at all, is named.
    if isinstance(root, str) and os.path.isfile(os.path.join(root, "tokenizer.json")):
        return Path(root)
    return None


async def _told(line: str, say: Callable[[str], None]) -> None:
    await asyncio.sleep(_SAY_S)
    say(line)


def _cards(answer: httpx.Response) -> list[dict[str, Any]]:
    """The models that a server lists; none where it has no such list."""
    match bounded_http.parsed(answer):
        case {"data": [*cards]} if answer.is_success:
            return [card for card in cards if isinstance(card, dict) and isinstance(card.get("id"), str)]
    return []
