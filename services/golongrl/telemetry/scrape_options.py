"""The options of a job that serves its metrics while it runs; apart from the server, so that `--help` is fast."""

from typing import Annotated

import typer

MetricsPort = Annotated[
    int | None, typer.Option(min=0, max=65535, help="Serve Prometheus metrics here while it runs; 0 takes a free port.")
]
MetricsHost = Annotated[str, typer.Option(help="Address for --metrics-port.")]
