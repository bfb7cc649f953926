"""`python -m golongrl.rollout` is `golongrl rollout`."""

import sys

import typer

from golongrl.errors import GolongrlError
from golongrl.rollout.command import rollout

try:
    typer.run(rollout)
except GolongrlError as error:
    print(f"error: {error}", file=sys.stderr)
    sys.exit(error.exit_code)
