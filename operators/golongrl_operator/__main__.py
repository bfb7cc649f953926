"""`python -m golongrl_operator` is `golongrl operator`."""

import sys

import typer

from golongrl.errors import GolongrlError
from golongrl_operator.command import operator

if __name__ == "__main__":
    try:
        typer.run(operator)
    except GolongrlError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
