"""`python -m golongrl.queue` is `golongrl queue`."""

from golongrl.errors import one_line
from golongrl.queue.command import app

with one_line():
    app(prog_name="golongrl queue")
