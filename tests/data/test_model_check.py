"""A recipe against its model's folder: weights, vocabulary, template, think gate. Every fault is told before a run."""

import json
import random
import shutil
from fnmatch import fnmatch

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from golongrl.data import prepare
from golongrl.data.chat import Chat, think_problem
from golongrl.data.command import app as data_app
from golongrl.data.errors import DataError
from golongrl.data.model_check import check_local_model, model_of
from golongrl.data.models import QUICKSTART, local_folder, resolve
from golongrl.data.weight_files import stored_tensors
from golongrl.recipe import load

USER = [{"role": "user", "content": "q"}]


@pytest.fixture
def model(tiny_model, tmp_path):
    copy = tmp_path / "model"
    shutil.copytree(tiny_model, copy)
    return copy


def edited(path, change):
    content = json.loads(path.read_text("utf-8"))
    change(content)
    path.write_text(json.dumps(content), "utf-8")


def recipe_of(model, *overrides):
    return load("quickstart", [f"model.path={model}", *overrides])


def test_the_packaged_model_fits_its_recipe():
    assert model_of(load("quickstart"), to_train=True) == resolve(QUICKSTART)
    assert check_local_model(load("quickstart"))
    assert not check_local_model(load("qwen3-4b-grpo"))  # not on this machine: nothing is fetched to check it


def test_a_shard_that_the_index_names_is_missing(model):
    index = {"weight_map": {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}}
    (model / "model.safetensors").rename(model / "model-00001-of-00002.safetensors")
    with pytest.raises(DataError, match=r"neither model\.safetensors nor model\.safetensors\.index"):
        resolve(str(model))
    (model / "model.safetensors.index.json").write_text(json.dumps(index), "utf-8")
    with pytest.raises(DataError, match=r"model-00002-of-00002\.safetensors is missing, but model\.safetensors\.index"):
        resolve(str(model))
    for damaged in ("{", "[]", '{"weight_map": 3}', "[" * 100_000):
        (model / "model.safetensors.index.json").write_text(damaged, "utf-8")
        with pytest.raises(DataError, match="no readable weight_map") as caught:
            resolve(str(model))
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("keep", [1, 7, 8, 100, -1, -1000])
def test_weights_that_are_cut_short(model, keep):
    file = model / "model.safetensors"
    file.write_bytes(file.read_bytes()[:keep])
    with pytest.raises(DataError, match=r"model\.safetensors: (truncated|its header is damaged)") as caught:
        resolve(str(model))
    assert "\n" not in str(caught.value)


@settings(max_examples=200)
@given(seed=st.integers(0, 10**6), flips=st.integers(1, 20))
def test_a_damaged_header_is_one_line(tiny_model, tmp_path_factory, seed, flips):
    rng = random.Random(seed)
    data = bytearray((tiny_model / "model.safetensors").read_bytes())
    for _ in range(flips):
        data[rng.randrange(400)] ^= 1 << rng.randrange(8)
    folder = tmp_path_factory.getbasetemp() / "damaged"
    folder.mkdir(exist_ok=True)
    (folder / "model.safetensors").write_bytes(data)
    lines = []
    try:
        stored_tensors(folder)
    except DataError as error:
        lines = str(error).splitlines()
    assert len(lines) < 2


def test_a_vocabulary_below_the_tokenizers(model):
    edited(model / "config.json", lambda config: config.update(vocab_size=10))
    with pytest.raises(DataError, match=r"vocab_size 10 is below the tokenizer's \d+ ids"):
        model_of(recipe_of(model))


def test_all_faults_of_a_folder_are_told(model):
    edited(model / "config.json", lambda config: config.update(vocab_size=10, max_position_embeddings=100))
    (model / "chat_template.jinja").write_text("{{ messages[0].content }}<think></think>", "utf-8")
    with pytest.raises(DataError) as caught:
        model_of(recipe_of(model))
    for part in ("at most 100 works", "vocab_size 10", "closes the think block"):
        assert part in str(caught.value)


@pytest.mark.parametrize("content", ["", "[]", "{", "3", "[" * 100_000, "\xff"])
@pytest.mark.parametrize("name", ["config.json", "tokenizer_config.json", "tokenizer.json", "special_tokens_map.json"])
def test_json_that_is_none_names_its_file(model, name, content):
    (model / name).write_bytes(content.encode("latin-1"))
    with pytest.raises(DataError, match=name.replace(".", r"\.")) as caught:
        model_of(recipe_of(model))
    assert "\n" not in str(caught.value)


@settings(max_examples=60)
@given(seed=st.integers(0, 10**6), flips=st.integers(1, 8))
def test_a_damaged_tokenizer_is_one_line(tiny_model, tmp_path_factory, seed, flips):
    rng = random.Random(seed)
    folder = tmp_path_factory.getbasetemp() / "tokenizer"
    if not folder.exists():
        shutil.copytree(tiny_model, folder)
    data = bytearray((tiny_model / "tokenizer.json").read_bytes())
    for _ in range(flips):
        data[rng.randrange(min(len(data), 3000))] ^= 1 << rng.randrange(8)
    (folder / "tokenizer.json").write_bytes(data)
    said = ""
    try:
        check_local_model(load("quickstart", [f"model.path={folder}"]))
    except DataError as error:
        said = str(error)
    assert "\n" not in said.replace("\n  ", " ")


CLOSED = (
    "{% for m in messages %}{{ m.content }}{% endfor %}"
    "{% if not (enable_thinking|default(true)) %}<think>\n\n</think>\n\n{% endif %}"
)


@pytest.mark.parametrize(
    ("template", "problem"),
    [
        ("", "makes an empty prompt"),
        (" \n", "makes an empty prompt"),
        ("{# all of it is a comment: {{ messages[0].content }} #}", "makes an empty prompt"),
        ("Answer the question.", "leaves out the user's message"),
        ("{{ messages[0].content[:5] }}", "leaves out the user's message"),
        (
            "{% for m in messages if m.role == 'system' %}{{ m.content }}{% endfor %}Go.",
            "leaves out the user's message",
        ),
        ("{% for m in messages %}{{ m.role }}: {{ m.text }}\n{% endfor %}", "leaves out the user's message"),
    ],
)
def test_a_template_without_the_question(model, template, problem):
    (model / "chat_template.jinja").write_text(template, "utf-8")
    with pytest.raises(DataError, match=problem):
        model_of(recipe_of(model))
    assert problem in (think_problem(Chat.open(model), None) or "")


def test_a_template_that_closes_the_think_block(model):
    (model / "chat_template.jinja").write_text(CLOSED, "utf-8")
    chat = Chat.open(model)
    assert think_problem(chat, None) is None
    assert think_problem(chat, True) is None
    assert "set data.enable_thinking: true" in (think_problem(chat, False) or "")
    with pytest.raises(DataError, match="closes the think block"):
        prepare(recipe_of(model, "data.enable_thinking=false"), model.parent / "out", model)
    for override in ([], ["--set", "data.enable_thinking=true"]):
        words = ["prepare", "quickstart", "--out", str(model.parent / "ok"), "--set", f"model.path={model}", *override]
        assert CliRunner().invoke(data_app, [*words, "--set", "data.prompts=18"]).exception is None


def test_a_template_that_opens_the_think_block_is_fine(model):
    (model / "chat_template.jinja").write_text("{{ messages[0].content }}<think>\n", "utf-8")
    assert think_problem(Chat.open(model), None) is None
    # Talking of the tags before the question closes nothing.
    (model / "chat_template.jinja").write_text("Use <think></think>. {{ messages[0].content }}\n", "utf-8")
    assert think_problem(Chat.open(model), None) is None


CHATML = "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"


@pytest.mark.parametrize(
    ("template", "opening"),
    [
        (CHATML, "<|im_start|>assistant"),
        ("{% for m in messages %}### {{ m.role }}:\n{{ m.content }}\n\n{% endfor %}", "### assistant:"),
        (CHATML + "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}", None),
        # Nothing opens a turn here, or the prompt has it always.
        ("{% for m in messages %}{% if m.role == 'user' %}[INST] {{ m.content }} [/INST]{% else %} {{ m.content }}</s>"
         "{% endif %}{% endfor %}", None),
        ("{{ messages[0].content }}\nAnswer:", None),
        ("{% if messages|length > 1 %}{{ raise_exception('one question') }}{% endif %}{{ messages[0].content }}", None),
    ],
)  # fmt: skip
def test_a_template_that_leaves_the_turn_closed(model, template, opening):
    (model / "chat_template.jinja").write_text(template, "utf-8")
    problem = think_problem(Chat.open(model), None)
    if opening is None:
        assert problem is None
    else:
        assert "ignores add_generation_prompt" in (problem or "")
        assert f"for which it writes {opening!r}" in (problem or "")


@pytest.mark.parametrize("special", [True, False])
def test_a_tokenizer_that_drops_the_tags(model, special):
    def add(content):
        first = max(token["id"] for token in content["added_tokens"]) + 1 if content["added_tokens"] else 0
        first = max(first, len(content["model"]["vocab"]))
        form = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": special}
        kept = [token for token in content["added_tokens"] if token["content"] not in ("<think>", "</think>")]
        new = [{"id": first + i, "content": name, **form} for i, name in enumerate(("<think>", "</think>"))]
        content["added_tokens"] = kept + new

    edited(model / "tokenizer.json", add)
    problem = think_problem(Chat.open(model), None)
    assert (problem is not None) == special
    assert not special or "decoding drops or changes </think>" in problem


TEMPLATES = [
    ("{% generation %}{{ messages[0].content }}{% endgeneration %}", "q"),
    ("{{ {'b': 1, 'a': 'ü'}|tojson(separators=(',', ':'), sort_keys=true) }}", '{"a":"ü","b":1}'),
    ("{{ messages|tojson(indent=2, ensure_ascii=True) }}", json.dumps(USER, indent=2)),
    ("{{ bos_token }}|{{ eos_token }}", "<first>|<last>"),
]


@pytest.mark.parametrize(("template", "expected"), TEMPLATES)
def test_templates_render_as_with_transformers(model, template, expected):
    from transformers import AutoTokenizer

    edited(
        model / "tokenizer_config.json", lambda config: [config.pop(name, None) for name in ("bos_token", "eos_token")]
    )
    (model / "special_tokens_map.json").write_text(
        json.dumps({"bos_token": {"content": "<first>", "lstrip": False}, "eos_token": "<last>"}), "utf-8"
    )
    (model / "chat_template.jinja").write_text(template, "utf-8")
    assert Chat.open(model).render(USER) == expected
    if "bos" not in template:  # transformers 5 does not read this file
        theirs = AutoTokenizer.from_pretrained(model)
        assert theirs.apply_chat_template(USER, add_generation_prompt=True, tokenize=False) == expected


@pytest.mark.parametrize(
    "template",
    [
        "{{ 1 / 0 }}", "{{ messages[9].content }}", "{{ messages.nothing.more }}", "{{ 'a' + 1 }}",
        "{{ raise_exception('no\\nway') }}", "{{ range(10**9)|list }}", "{{ messages|tojson(indent='x', nothing=1) }}",
        "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}", "{{ strftime_now(3) }}", "{{ ''.__class__.__mro__ }}",
        "{{ messages[0]['content'].format(1, 2).nothing() }}", "{{ 'x' * (10**30) }}",
    ],
)  # fmt: skip
def test_an_error_inside_a_template_is_one_line(model, template):
    (model / "chat_template.jinja").write_text(template, "utf-8")
    with pytest.raises(DataError, match="chat template") as caught:
        Chat.open(model).render(USER)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "template",
    ["{% if %}", "{% nothing %}", "{{ 'open", "{% generation %}", "{{ x|nofilter }}", "(" * 10 + "{{ " + "(" * 5_000],
)
def test_a_template_that_cannot_be_read_is_one_line(model, template):
    (model / "chat_template.jinja").write_text(template, "utf-8")
    with pytest.raises(DataError, match="chat template") as caught:
        Chat.open(model)
    assert "\n" not in str(caught.value)


@settings(max_examples=100)
@given(
    st.lists(
        st.sampled_from(
            [
                "{{",
                "}}",
                "{%",
                "%}",
                "messages",
                "[0]",
                ".content",
                "for m in",
                "endfor",
                "if",
                "endif",
                "generation",
                "endgeneration",
                "|",
                "tojson",
                "'",
                "(",
                ")",
                " ",
                "x",
                "1",
                "+",
                "/",
                "0",
                "\n",
                "macro",
                "set",
                "=",
                "#}",
                "{#",
            ]
        ),
        max_size=14,
    ).map(" ".join)
)
def test_any_template_renders_or_is_refused(tiny_model, tmp_path_factory, template):
    folder = tmp_path_factory.getbasetemp() / "template"
    if not folder.exists():
        shutil.copytree(tiny_model, folder)
    (folder / "chat_template.jinja").write_text(template, "utf-8")
    lines = []
    try:
        Chat.open(folder).render(USER)
    except DataError as error:
        lines = str(error).splitlines()
    assert len(lines) < 2


@pytest.mark.parametrize("templates", [[], [3], [{}], [{"name": "default"}], {"a": 1}, 5])
def test_a_list_of_templates_without_a_default(model, templates):
    (model / "chat_template.jinja").unlink(missing_ok=True)
    edited(model / "tokenizer_config.json", lambda config: config.update(chat_template=templates))
    with pytest.raises(DataError, match="no chat template"):
        Chat.open(model)


@pytest.mark.parametrize(("trusted", "expected"), [(False, False), (True, True)])
def test_python_files_are_downloaded_with_trust_alone(monkeypatch, tiny_model, trusted, expected):
    import huggingface_hub

    asked = []

    def download(name, allow_patterns, ignore_patterns):
        assert fnmatch("consolidated.safetensors", ignore_patterns)
        asked.append((name, allow_patterns))
        return str(tiny_model)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    assert (
        model_of(load("quickstart", ["model.path=org/name", f"model.trust_remote_code={str(trusted).lower()}"]))
        == tiny_model
    )
    ((name, patterns),) = asked
    assert name == "org/name"
    assert ("*.py" in patterns) is expected


def test_a_model_that_is_not_here_is_not_fetched():
    assert local_folder("org/not-on-this-machine") is None
    with pytest.raises(DataError, match="no such folder"):
        local_folder("/no/such/folder")
