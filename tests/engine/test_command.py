"""The command line: one clear line and exit code 2 for what cannot be served."""

import subprocess
import sys
from pathlib import Path


def run(*arguments: str) -> tuple[int, str]:
    command = [sys.executable, "-m", "golongrl", "engine", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240, check=False)
    return done.returncode, done.stderr


def test_a_folder_without_weights_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    code, errors = run("--model-path", str(tmp_path))
    assert (code, errors) == (2, f"error: model folder {tmp_path} has no *.safetensors weights\n")
