"""How long texts are, in tokens of the pipeline's tokenizer, or estimated without one."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from golongrl.data.construct.errors import PipelineError
from golongrl.data.corpus import estimate_tokens

_FILE = "tokenizer.json"


@dataclass(frozen=True, slots=True)
class Measure:
    """Counts tokens; picklable, because the tokenizer is read where it is needed. None estimates."""

    tokenizer: Path | None

    def count(self, texts: Sequence[str]) -> list[int]:
        """Tokens of each text."""
        if self.tokenizer is None:
            return [estimate_tokens(text) for text in texts]
        encoded = _tokenizer(self.tokenizer).encode_batch_fast(list(texts), add_special_tokens=False)
        return [len(one.ids) for one in encoded]


def measure_of(tokenizer: str | None) -> Measure:
    """The measure of a pipeline; a hub id is fetched (the tokenizer alone).

    Raises:
        PipelineError: there is no such tokenizer.
    """
    if tokenizer is None:
        return Measure(None)
    if tokenizer.startswith("builtin:"):
        from golongrl.data.models import resolve

        return Measure(resolve(tokenizer) / _FILE)
    folder = Path(tokenizer)
    if folder.is_dir():
        if not (folder / _FILE).is_file():
            raise PipelineError(f"tokenizer {tokenizer}: no {_FILE} in this folder")
        return Measure(folder / _FILE)
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        return Measure(Path(hf_hub_download(tokenizer, _FILE)))
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        first = str(error).strip().split("\n")[0]
        raise PipelineError(f"tokenizer {tokenizer}: no such folder, and not on the hub: {first}") from error


@lru_cache(maxsize=2)
def _tokenizer(path: Path) -> Any:
    from tokenizers import Tokenizer

    return Tokenizer.from_file(str(path))
