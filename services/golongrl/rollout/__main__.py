"""`python -m golongrl.rollout` is `golongrl rollout`."""

import typer

from golongrl.errors import one_line
from golongrl.rollout.command import rollout

with one_line():
    typer.run(rollout)
