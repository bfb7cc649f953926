"""`python -m golongrl.learner` is `golongrl learner`."""

import sys

import typer

from golongrl.errors import GolongrlError
from golongrl.learner.command import learner

if __name__ == "__main__":
    try:
        typer.run(learner)
    except GolongrlError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
