"""`python -m golongrl.engine` is `golongrl engine`."""

import typer

from golongrl.engine.command import engine
from golongrl.errors import one_line

if __name__ == "__main__":
    app = typer.Typer(pretty_exceptions_enable=False, add_completion=False)
    app.command()(engine)
    with one_line():
        app()
