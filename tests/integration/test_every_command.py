"""Whatever becomes of a command's output or of the command itself: no traceback, the right exit code, nothing left."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

# `make test` has single commands of each kind (test_errors).
pytestmark = pytest.mark.full

TESTS = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[dict[str, Any]]]:
    """Of all of them at once, because importing them takes longer than most run."""
    folder = tmp_path_factory.mktemp("commands")
    words = [sys.executable, "-m", "support.every_command", str(folder)]
    ended = subprocess.run(words, cwd=TESTS, capture_output=True, text=True, check=True, timeout=900)
    found: dict[str, list[dict[str, Any]]] = json.loads(ended.stdout)
    return found


def test_output_that_cannot_be_written_is_told_in_one_line(results: dict[str, list[dict[str, Any]]]) -> None:
    seen = 0
    for result in results["printed"]:
        words = result["words"]
        match result["where"]:
            case "full":
                service = words[:1] in (["learner"], ["rollout"], ["engine"], ["operator"]) or words[:2] == [
                    "reward",
                    "serve",
                ]
                expected = 74 if service else 1, "error: the output cannot be written: No space left on device\n"
            case "left":
                expected = 1, ""
            case "closed":
                expected = 0, ""
            case _:
                expected = 2, ""
        assert (result["code"], result["errors"]) == expected, result
        seen += 1
    assert seen > 100


def test_a_signal_ends_a_command_that_waits(results: dict[str, list[dict[str, Any]]]) -> None:
    assert len(results["interrupted"]) > 20
    for result in results["interrupted"]:
        assert not result["early"], result
        assert result["code"] == 128 + result["signal"], result
        assert (result["errors"], result["left"]) == ("", []), result
