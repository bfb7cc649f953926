"""`python -m golongrl.engine`, the same command as `golongrl engine`."""

import typer

from golongrl.engine.command import engine

if __name__ == "__main__":
    typer.run(engine)
