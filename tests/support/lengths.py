"""A function of rows that worker processes can import; some words make it misbehave."""

import os
import signal
import time
from collections.abc import Sequence

from golongrl.data.construct.stage import Made, Row
from golongrl.errors import InputError


def lengths(rows: Sequence[Row]) -> Sequence[Made]:
    return [_length(row["word"]) for row in rows]


def _length(word: str) -> Made:
    if word == "crash":
        os.kill(os.getpid(), signal.SIGKILL)
    if word == "hang":
        time.sleep(600)
    if word == "defect":
        raise ZeroDivisionError
    if word == "damaged":
        raise InputError("words.txt: damaged; write it again")
    return [{"word": word, "n": len(word)}]
