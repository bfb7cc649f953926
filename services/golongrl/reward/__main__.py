"""`python -m golongrl.reward`: the same as `golongrl reward`."""

from golongrl.reward.command import app

if __name__ == "__main__":
    app(prog_name="golongrl reward")
