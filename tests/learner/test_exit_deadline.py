"""A learner whose training is over ends, whatever hangs, with the exit code that it would have had."""

import subprocess
import sys

import pytest

HANGS = {
    "a thread": "threading.Thread(target=threading.Event().wait).start()",
    "an executor": "ThreadPoolExecutor().submit(threading.Event().wait)",
    "an exit handler": "atexit.register(threading.Event().wait)",
    "asyncio's threads": """
async def main():
    asyncio.get_running_loop().run_in_executor(None, threading.Event().wait)
asyncio.run(main())
""",
    "an await": """
async def main():
    await asyncio.Event().wait()
asyncio.run(main())
""",
}
TEXT = """
import asyncio, atexit, sys, threading
from concurrent.futures import ThreadPoolExecutor
from golongrl.errors import InputError
from golongrl.learner.exit_deadline import ExitDeadline
deadline = ExitDeadline(0.5)
"""


def ends(code: str) -> "tuple[int, str]":
    done = subprocess.run([sys.executable, "-c", TEXT + code], capture_output=True, text=True, timeout=300, check=False)
    return done.returncode, done.stderr


@pytest.mark.parametrize("hang", HANGS)
@pytest.mark.parametrize("code", [0, 143])
def test_what_hangs_is_named_and_ended(hang: str, code: int) -> None:
    returned, said = ends(f"deadline.begin({code})\n{HANGS[hang]}")
    assert returned == code
    assert said.startswith("the learner did not end within 0.5 s")
    assert "most recent call first" in said
    assert "error:" not in said


def test_an_error_keeps_its_line_and_exit_code() -> None:
    code = (
        "deadline._limit_s = 600\n"
        "with deadline.after():\n    try:\n        raise InputError('redis://u:secret@h is no Redis')\n    finally:\n"
    )
    returned, said = ends(code + "        pass\n")
    assert returned == 1
    assert "did not end" not in said
    body = "    with deadline.after():\n        raise InputError('redis://u:secret@h is no Redis')\n"
    returned, said = ends(f"try:\n{body}finally:\n    deadline.begin(0)\n    threading.Event().wait()")
    assert returned == 2
    assert said.splitlines()[-1] == "error: redis://u:***@h is no Redis"


def test_a_process_that_ends_in_time_is_left_alone() -> None:
    assert ends("deadline._limit_s = 600\ndeadline.begin(3)\nsys.exit(7)") == (7, "")
