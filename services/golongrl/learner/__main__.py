"""`python -m golongrl.learner` is `golongrl learner`."""

import typer

from golongrl.errors import one_line
from golongrl.learner.command import learner

with one_line():
    typer.run(learner)
