"""`python -m golongrl.engine`, the same command as `golongrl engine`."""

import sys

import typer

from golongrl.engine.command import engine
from golongrl.errors import GolongrlError

if __name__ == "__main__":
    app = typer.Typer(pretty_exceptions_enable=False, add_completion=False)
    app.command()(engine)
    try:
        app()
    except GolongrlError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
