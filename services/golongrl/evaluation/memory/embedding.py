"""Embeddings of texts by a sentence encoder in a local folder, as the vector memory needs them.

BFCL uses all-MiniLM-L6-v2: the mean of the last layer over the text's tokens, 256 of them at most.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Final

from golongrl.errors import brief
from golongrl.evaluation.errors import EvaluationError
from golongrl.evaluation.memory.stores import Embed

# Where the published models of this kind (all-MiniLM) are cut.
_MOST_TOKENS: Final = 256


def encoder(folder: Path) -> Embed:
    """The encoder in a Hugging Face folder.

    Raises:
        EvaluationError: there is none that can be loaded.
    """
    if not (folder / "config.json").is_file():
        raise EvaluationError(f"embedder {folder}: no config.json in this folder; put all-MiniLM-L6-v2 there")
    import torch
    from transformers import AutoModel, AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
        model = AutoModel.from_pretrained(folder, local_files_only=True).eval()
    except (OSError, ValueError) as error:
        raise EvaluationError(f"embedder {folder}: {brief(error)}") from error

    def embed(texts: Sequence[str]) -> list[list[float]]:
        batch = tokenizer(list(texts), padding=True, truncation=True, max_length=_MOST_TOKENS, return_tensors="pt")
        with torch.inference_mode():
            hidden = model(**batch).last_hidden_state
        mask = batch["attention_mask"].unsqueeze(-1).to(hidden.dtype)
        mean: list[list[float]] = ((hidden * mask).sum(1) / mask.sum(1).clamp(min=1e-9)).tolist()
        return mean

    return embed
