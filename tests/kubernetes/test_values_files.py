"""A values file means the same to `golongrl deploy` as to helm, or is refused by name."""

import json
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import yaml

from golongrl.kubernetes.rayjob.load import ValuesError, read_tree
from support.helm import Helm, tool

# What YAML readers have been seen to differ in, as values and as keys.
WORDS = (
    "y", "Y", "n", "N", "yes", "Yes", "YES", "yEs", "no", "No", "NO", "nO", "on", "On", "ON", "oN", "off", "Off",
    "OFF", "true", "True", "TRUE", "tRue", "false", "False", "FALSE", "~", "null", "Null", "NULL", "none", "nan",
    "inf", "=", "<<", "t", "f", "0", "1", "-1", "+1", "00", "08", "010", "0o10", "0x1F", "0X1F", "0b11",
    "1_000", "1__0", "1_", "1e3", "1E3", "1e-3", "1.e3", ".5", "5.", "-.5", ".", "1:30", "1:30:45", "12e03",
    "0.1_5", "1Gi", "1m", "50%", "1.2.3", "-0", "-010", "2026-01-02",
    "2026-1-2", "2026-13-01", "2026-01-02T03:04:05Z", "2001-12-14t21:59:43.10-05:00", "2026-02-30", "'n'", '"on"',
    "'x''y'", "a:b", "a#b", "http://x:1/y",
)  # fmt: skip
# The key `n` is the recipe's, which the chart puts right.
KEYS = (
    *(word for word in WORDS if word != "n"), "1e+3", "1.0", "1.10", "0.0", "-0.0", "1e15", ".inf", ".Inf", "-.inf",
    ".nan", ".NaN", "0x10", "1_0", "999999999999999999", "9223372036854775808", "18446744073709551616",
    "99999999999999999999", "0xFFFFFFFFFFFFFFFF", "123456789.0", "''", '""', "'~'", "'1e3'", "a b", "a.b/c", "é", "?",
)  # fmt: skip
TEXTS = [*(f"a: {word}" for word in WORDS), *(f"a: [{word}]" for word in WORDS), *(f"{{{word}: x}}" for word in KEYS)]


@pytest.fixture(params=["helm3", "helm4"])
def helm_reads(request: pytest.FixtureRequest, tmp_path: Path) -> Any:
    """What a chart is given of a values file."""
    chart = tmp_path / "chart"
    (chart / "templates").mkdir(parents=True)
    (chart / "Chart.yaml").write_text("{apiVersion: v2, name: c, version: 0.1.0}")
    (chart / "templates" / "all.yaml").write_text("values: {{ toJson .Values | quote }}\n")

    def reads(text: str) -> Any:
        path = tmp_path / "values.yaml"
        path.write_text(text)
        done = Helm(tool(request.param)).run("template", "r", str(chart), "-f", str(path))
        assert done.returncode == 0, done.stderr
        return json.loads(yaml.safe_load(done.stdout)["values"])

    return reads


def without_nulls(value: Any) -> Any:
    """Helm takes a null for a key that is not there."""
    return {key: part for key, part in value.items() if part is not None} if isinstance(value, dict) else value


def test_what_is_not_refused_is_what_helm_reads(helm_reads: Any, tmp_path: Path) -> None:
    path, read = tmp_path / "one.yaml", dict[str, Any]()
    for text in TEXTS:
        path.write_text(text)
        with suppress(ValuesError):
            read[text] = read_tree(path)
    assert len(read) > len(TEXTS) / 2
    found = helm_reads("".join(f"k{number}:\n  {text}\n" for number, text in enumerate(read)))
    for number, (text, ours) in enumerate(read.items()):
        assert without_nulls(found.get(f"k{number}")) == without_nulls(ours), text


@pytest.mark.parametrize("word", ["y", "n", "Y", "N"])
def test_a_word_that_only_some_readers_take_for_a_boolean_is_named(word: str, tmp_path: Path) -> None:
    path = tmp_path / "values.yaml"
    path.write_text(f"reward:\n  autoscaling:\n    enabled: {word}\n")
    with pytest.raises(ValuesError, match=rf"line 3, column 14: {word}: YAML readers take this for true or false, or"):
        read_tree(path)
