"""Our rendering and tokenising is that of transformers."""

import json
import shutil

import pytest

from golongrl.data.chat import Chat
from golongrl.data.errors import DataError
from golongrl.data.models import QUICKSTART, resolve

CHATS = [
    [{"role": "user", "content": "Hello <think>x</think> ü 12\n"}],
    [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "{\"data\": [[1]]}"},
     {"role": "assistant", "content": "<think>\nwell\n</think>\n\nYes"}, {"role": "user", "content": "  again "}],
]  # fmt: skip

# In the manner of Qwen3's template: namespaces, loops backwards, filters, a thinking switch, string methods.
QWEN_STYLE = """
{%- if messages[0].role == 'system' %}
    {{- '<|im_start|>system\\n' + messages[0].content + '<|im_end|>\\n' }}
{%- endif %}
{%- set ns = namespace(last=messages|length - 1) %}
{%- for message in messages[::-1] %}
    {%- if message.role == "user" %}{%- set ns.last = messages|length - 1 - loop.index0 %}{%- break %}{%- endif %}
{%- endfor %}
{%- for message in messages %}
    {%- if message.role == "user" %}
        {{- '<|im_start|>user\\n' + message.content + '<|im_end|>\\n' }}
    {%- elif message.role == "assistant" %}
        {%- set content = message.content.split('</think>')[-1].lstrip('\\n') %}
        {{- '<|im_start|>assistant\\n' + content + '<|im_end|>\\n' }}
    {%- elif message.role == "tool" %}
        {{- raise_exception('no tools: ' + (message|tojson)) }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\\n' }}
    {%- if enable_thinking is defined and enable_thinking is false %}
        {{- '<think>\\n\\n</think>\\n\\n' }}
    {%- endif %}
{%- endif %}
{%- if bos_token %}{{- bos_token }}{%- endif %}{{- eos_token }}
"""


@pytest.fixture(params=["tiny", "qwen-style", "quickstart"])
def folder(request, tiny_model, tmp_path):
    if request.param == "quickstart":
        return resolve(QUICKSTART)
    if request.param == "tiny":
        return tiny_model
    copy = tmp_path / "model"
    shutil.copytree(tiny_model, copy)
    (copy / "chat_template.jinja").write_text(QWEN_STYLE, "utf-8")
    return copy


@pytest.mark.parametrize("messages", CHATS)
@pytest.mark.parametrize("thinking", [None, True, False])
def test_ids_are_those_of_transformers(folder, messages, thinking):
    from transformers import AutoTokenizer

    theirs = AutoTokenizer.from_pretrained(folder)
    switch = {} if thinking is None else {"enable_thinking": thinking}
    chat = Chat.open(folder)
    text = chat.render(messages, thinking)
    assert text == theirs.apply_chat_template(messages, add_generation_prompt=True, tokenize=False, **switch)
    (ids,) = chat.encode([text])
    expected = theirs.apply_chat_template(messages, add_generation_prompt=True, return_dict=False, **switch)
    assert ids.tolist() == expected
    assert chat.decode(ids) == theirs.decode(expected, skip_special_tokens=True)


def test_thoughts_stay_visible_in_the_packaged_models_text():
    chat = Chat.open(resolve(QUICKSTART))
    response = "<think> a b</think>[Answer]\n c\n<answer>{}</answer>"
    (ids,) = chat.encode([response + "<|im_end|>"])
    assert chat.decode(ids, skip_special_tokens=True) == response


def test_a_template_that_refuses_is_one_line(tiny_model, tmp_path):
    copy = tmp_path / "model"
    shutil.copytree(tiny_model, copy)
    (copy / "chat_template.jinja").write_text("{{ raise_exception('not like this') }}", "utf-8")
    with pytest.raises(DataError, match="chat template: not like this"):
        Chat.open(copy).render(CHATS[0])
    (copy / "chat_template.jinja").write_text("{% if %}", "utf-8")
    with pytest.raises(DataError, match="chat template line 1"):
        Chat.open(copy)


def test_what_a_folder_lacks_is_named(tiny_model, tmp_path):
    copy = tmp_path / "model"
    shutil.copytree(tiny_model, copy)
    (copy / "chat_template.jinja").unlink(missing_ok=True)
    config = json.loads((copy / "tokenizer_config.json").read_text("utf-8"))
    config.pop("chat_template", None)
    (copy / "tokenizer_config.json").write_text(json.dumps(config), "utf-8")
    with pytest.raises(DataError, match="no chat template"):
        Chat.open(copy)
    (copy / "tokenizer.json").write_text("{}", "utf-8")
    with pytest.raises(DataError, match="not a tokenizer"):
        Chat.open(copy)
    (copy / "tokenizer.json").unlink()
    with pytest.raises(DataError, match=r"no tokenizer\.json"):
        Chat.open(copy)


@pytest.mark.parametrize(
    ("part", "value"),
    [
        ("normalizer", {"type": "Precompiled", "precompiled_charsmap": "AAAA"}),
        ("decoder", {"type": "Strip", "content": "a", "start": 10, "stop": 10}),
    ],
)
def test_a_tokenizer_that_makes_its_library_panic_is_one_line(tiny_model, tmp_path, part, value):
    folder = shutil.copytree(tiny_model, tmp_path / "m")
    described = json.loads((folder / "tokenizer.json").read_text())
    (folder / "tokenizer.json").write_text(json.dumps(described | {part: value}))

    def there_and_back():
        chat = Chat.open(folder)
        chat.decode(chat.encode(["a</think>b"])[0].tolist())

    with pytest.raises(DataError, match="the tokenizer library panicked: ") as error:
        there_and_back()
    assert "\n" not in str(error.value)


FOR_EVER = [
    "{% for a in range(99999) %}{% for b in range(99999) %}{% set x = a %}{% endfor %}{% endfor %}",
    "{% macro f(n) %}{% if n %}{{ f(n - 1) }}{{ f(n - 1) }}{% endif %}{% endmacro %}{{ f(60) }}",
    "{% for x in [[1, 1], [1, 1]] recursive %}{{ loop([[1, 1], [1, 1]]) if loop.depth < 60 }}{% endfor %}",
    "{% set ns = namespace(s='abc') %}{% for i in range(99) %}{% set ns.s = ns.s + ns.s %}{% endfor %}",
    "{% set ns = namespace(s='abc') %}{% for i in range(99) %}{% set ns.s = ns.s ~ ns.s %}{% endfor %}",
    "{% set ns = namespace(s=[1]) %}{% for i in range(99) %}{% set ns.s = ns.s + ns.s %}{% endfor %}",
    "{{ 'abc' * 10000000000 }}",
    "{{ messages * 99999999999 }}",
    "{{ 9 ** 9 ** 9 }}",
    "{{ 'abc'.center(99999999999) }}",
    "{% for i in range(99999) %}{{ 'x' * 9999999 }}{% endfor %}",
    "{{ '%1000000000d' % 1 }}",
    "{{ '%.*f' % (1000000000, 1.5) }}",
    "{{ '%1000000000d'|format(1) }}",
    "{{ '{:>1000000000}'.format(1) }}",
    "{{ '{:>{}}'.format(1, '1000000000') }}",
    "{{ 'a'|center(10 ** 10) }}",
    "{{ [1]|slice(10 ** 9)|list }}",
    "{{ [1]|batch(10 ** 9, 1)|list }}",
    "{{ ('a' * 99999)|replace('a', 'b' * 99999) }}",
    "{{ ('a' * 99999).replace('a', 'b' * 99999) }}",
    "{{ ('a\n' * 99999)|indent(99999) }}",
    "{{ (['a' * 99999] * 99999)|join }}",
    "{{ ('a' * 99999).join(['b'] * 99999) }}",
    "{{ ('a' * 99999)|join('b' * 99999) }}",
]


@pytest.mark.parametrize("template", FOR_EVER)
def test_a_template_that_does_not_end_or_fills_the_memory_is_one_line(tiny_model, tmp_path, template):
    folder = shutil.copytree(tiny_model, tmp_path / "m")
    (folder / "chat_template.jinja").write_text(template)
    with pytest.raises(DataError, match=r"^chat template: .*(does not end|longer than|too large|at most)") as error:
        Chat.open(folder).render([{"role": "user", "content": "Hello"}])
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("slow", ["lipsum(100000)", "'x'|wordwrap(1)", "'x'|urlize", "'x'|striptags"])
def test_what_is_for_web_pages_is_unknown_to_a_template(tiny_model, tmp_path, slow):
    folder = shutil.copytree(tiny_model, tmp_path / "m")
    (folder / "chat_template.jinja").write_text("{{ " + slow + " }}{{ messages[0].content }}")
    with pytest.raises(DataError, match=r"chat template.*(No filter named|'lipsum' is undefined)"):
        Chat.open(folder).render([{"role": "user", "content": "Hello"}])


def test_formats_and_filters_of_common_sizes_are_rendered(tiny_model, tmp_path):
    folder = shutil.copytree(tiny_model, tmp_path / "m")
    template = (
        "{{ 'no. 5551234567: **%s** 100%' % 7000000000 if false else '**%5d** 5551234567' % 7000000000 }} "
        "{{ '{}: {:>4} {{1234567}}'.format(messages[0].content, 12345678) }} {{ 'a b'|replace(' ', '_')|center(5) }} "
        "{{ ['x', 1]|join(', ') }} {{ ('a\\nb')|indent(2) }} {{ 'a-b'.replace('-', '+') }} {{ '-'.join(['c', 'd']) }}"
    )
    (folder / "chat_template.jinja").write_text(template)
    rendered = Chat.open(folder).render([{"role": "user", "content": "1234567890 * {"}])
    assert rendered == "**7000000000** 5551234567 1234567890 * {: 12345678 {1234567}  a_b  x, 1 a\n  b a+b c-d"


@pytest.mark.parametrize(
    ("template", "words"),
    [
        ("{{ raise_exception('no\x1b[2J\nsystem\x07 role') }}", "chat template: no?[2J system? role"),
        ("{% if 1 %}" * 200 + "{% endif %}" * 200, "chat template: IndentationError: too many levels"),
        ("{{ '\\ud800' }}", "chat template: UnicodeEncodeError: .*surrogates not allowed"),
    ],
)
def test_what_no_terminal_or_tokenizer_takes_is_one_plain_line(tiny_model, tmp_path, template, words):
    folder = shutil.copytree(tiny_model, tmp_path / "m")
    (folder / "chat_template.jinja").write_text(template)
    with pytest.raises(DataError, match=words.replace("[", r"\[").replace("?", r"\?")) as error:
        Chat.open(folder).render([{"role": "user", "content": "Hello"}])
    assert str(error.value).isprintable()


def test_steps_are_those_of_one_prompt(tiny_model, tmp_path):
    folder = shutil.copytree(tiny_model, tmp_path / "m")
    (folder / "chat_template.jinja").write_text("{% for a in range(99999) %}{% endfor %}{{ messages[0].content }}")
    chat = Chat.open(folder)
    for text in map(str, range(25)):
        assert chat.render([{"role": "user", "content": text}]) == text
