"""`python -m golongrl.reward` is `golongrl reward`."""

from golongrl.errors import one_line
from golongrl.reward.command import app

if __name__ == "__main__":
    with one_line():
        app(prog_name="golongrl reward")
