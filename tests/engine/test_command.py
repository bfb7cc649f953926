"""The command line: one clear line and exit code 2 for what cannot be served."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from golongrl.engine.config import check_context
from golongrl.errors import InputError


def run(*arguments: str) -> tuple[int, str]:
    command = [sys.executable, "-m", "golongrl", "engine", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240, check=False)
    return done.returncode, done.stderr


def test_a_folder_without_weights_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    code, errors = run("--model-path", str(tmp_path))
    assert (code, errors) == (2, f"error: model folder {tmp_path} has no *.safetensors weights\n")


@pytest.mark.parametrize(
    ("config", "longest"),
    [
        ({"max_position_embeddings": 1024}, 1024),
        ({"text_config": {"max_position_embeddings": 512}}, 512),
        ({"max_position_embeddings": 40960, "rope_scaling": {"rope_type": "yarn", "factor": 4.0}}, 163840),
    ],
)
def test_a_context_beyond_the_models_own_is_refused(tmp_path: Path, config: dict[str, object], longest: int) -> None:
    """The engine served it, and wrote nonsense behind the model's last position."""
    (tmp_path / "config.json").write_text(json.dumps(config))
    check_context(longest, tmp_path)
    check_context(None, tmp_path)
    with pytest.raises(InputError, match=f"--context-length {longest + 1} exceeds .*at most {longest} works"):
        check_context(longest + 1, tmp_path)
