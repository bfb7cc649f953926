"""Settings of an engine, fixed at its start."""

import re
from dataclasses import dataclass
from pathlib import Path

from golongrl.data.errors import DataError
from golongrl.data.model_config import CONFIG, check_folder, json_object, sizes_of
from golongrl.errors import InputError
from golongrl.recipe.fit import longest_context

# A version of weights as it is reported.
VERSION = r"^[A-Za-z0-9][A-Za-z0-9._:/@+-]*$"
LONGEST_VERSION = 128


class ModelFolderError(InputError):
    """A model folder cannot be served; the message is one line that names it and says what is missing."""


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What an engine takes on at a time: requests that run, requests that wait, prompt tokens of one prefill."""

    max_batch: int = 64
    max_queue: int = 4096
    max_prefill_tokens: int = 4096


@dataclass(frozen=True, kw_only=True)
class EngineConfig(Limits):
    """Settings of one engine.

    `api_key` guards the normal endpoints. With `admin_api_key` set, the control endpoints need that key alone, and it
    is refused on the normal ones.
    """

    model_path: Path
    host: str = "127.0.0.1"
    port: int = 30000
    weight_version: str = "default"
    seed: int = 0
    context_length: int | None = None
    threads: int = 1
    drain_s: float = 10.0
    api_key: str | None = None
    admin_api_key: str | None = None


def check_version(version: str) -> None:
    """
    Raises:
        InputError: it is not a version that weights can be set to later.
    """
    if len(version) > LONGEST_VERSION or not re.fullmatch(VERSION, version) or version.endswith("\n"):
        raise InputError(
            f"--weight-version {version[:LONGEST_VERSION]!r}: use up to {LONGEST_VERSION} letters, digits and ._:/@+-, "
            "the first a letter or digit"
        )


def check_model_folder(path: Path) -> None:
    """Refuse a folder that holds no model, before anything heavy is imported.

    Raises:
        ModelFolderError: no folder, no config.json, no safetensors weights, no tokenizer, or a config of no model.
    """
    if not path.is_dir():
        raise ModelFolderError(f"model folder {path} does not exist")
    if not (path / "config.json").is_file():
        raise ModelFolderError(f"model folder {path} has no config.json: give a Hugging Face model folder")
    if not any(path.glob("*.safetensors")):
        raise ModelFolderError(f"model folder {path} has no *.safetensors weights")
    if not any((path / name).is_file() for name in ("tokenizer.json", "tokenizer_config.json", "tokenizer.model")):
        raise ModelFolderError(f"model folder {path} has no tokenizer (tokenizer.json)")
    try:
        check_folder(path)
    except DataError as error:
        raise ModelFolderError(str(error)) from error


def check_context(length: int | None, path: Path) -> None:
    """Refuse a context that the model in `path` was not made for: behind its last position it writes nonsense.

    Raises:
        InputError: naming the longest one that works.
    """
    longest = longest_context(sizes_of(json_object(path / CONFIG)))
    if length is not None and longest is not None and length > longest:
        raise InputError(
            f"--context-length {length} exceeds the model's {longest} positions ({path / CONFIG}: "
            f"max_position_embeddings); at most {longest} works"
        )
