"""The pipeline file: strict, with the nearest known key, and read back to itself."""

import pytest

from golongrl.data.construct.errors import PipelineError
from golongrl.data.construct.load import dump, load, packaged

SMALL = """
name: small
sources: {inputs: [{path: docs}]}
select: {tasks: {T1: 2}, bins: [{name: short, max_tokens: 100}]}
"""


@pytest.mark.parametrize("name", packaged())
def test_every_packaged_pipeline_is_read_back_to_itself(name, tmp_path):
    (tmp_path / "again.yaml").write_text(dump(load(name)), "utf-8")
    assert load(str(tmp_path / "again.yaml")) == load(name)


@pytest.mark.parametrize(
    ("item", "expected"),
    [
        ("sources.min_token=3", "unknown key sources.min_token; did you mean sources.min_tokens?"),
        ("select.bin=3", "unknown key select.bin; did you mean select.bins?"),
        ("select.tasks.T10=3", "select.tasks.T10"),
        ("sources.min_tokens=many", "sources.min_tokens"),
        ("sources.near_duplicate=1.5", "sources.near_duplicate"),
        ("select.bins=[]", "select.bins"),
        ("select.bins=[{name: a, max_tokens: 1}, {name: a, max_tokens: 2}]", "two bins have the same name"),
        ("select.bins=[{name: a, min_tokens: 3, max_tokens: 2}]", "min_tokens must be less than max_tokens"),
        ("nothing", "expected key.path=value"),
    ],
)
def test_a_wrong_value_is_one_line_that_names_the_key(tmp_path, item, expected):
    file = tmp_path / "small.yaml"
    file.write_text(SMALL, "utf-8")
    assert load(str(file)).name == "small"
    with pytest.raises(PipelineError) as caught:
        load(str(file), [item])
    assert expected in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_pipeline_that_is_not_there_is_named_with_the_nearest():
    with pytest.raises(PipelineError, match="did you mean laptop"):
        load("labtop")


@pytest.mark.parametrize("text", ["", "- a\n", "a: [\n", "name: x\n"])
def test_a_file_that_is_no_pipeline_is_refused(tmp_path, text):
    file = tmp_path / "p.yaml"
    file.write_text(text, "utf-8")
    with pytest.raises(PipelineError, match=r"p\.yaml"):
        load(str(file))
