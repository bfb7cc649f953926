"""`golongrl metrics`: the catalogue, and what a Prometheus on this machine needs to scrape a run."""

import json
from typing import Annotated

import typer

from golongrl.errors import InputError

app = typer.Typer(
    help="Prometheus metrics: what every service exports.",
    epilog="Example: `golongrl metrics list --service learner`",
    no_args_is_help=True,
)


@app.command("list", epilog="Example: `golongrl metrics list --service learner`")
def list_(
    service: Annotated[str | None, typer.Option(help="Only this service's: learner, queue, rollout, ...")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="A JSON array instead of a table.")] = False,
) -> None:
    """Print every metric with its type, unit, labels and meaning (docs/metrics.md has the same)."""
    from golongrl.monitoring.catalogues import CATALOGUES, records

    known = [catalogue.service for catalogue in CATALOGUES]
    if service is not None and service not in known:
        raise InputError(f"--service {service}: no such service; there are {', '.join(known)}")
    found = [record for record in records() if service in (None, record["service"])]
    if as_json:
        print(json.dumps(found, indent=2))
        return
    for record in found:
        labels = record["labels"]
        assert isinstance(labels, list)
        name = f"{record['name']}{{{','.join(labels)}}}" if labels else str(record["name"])
        unit = f", {record['unit']}" if record["unit"] else ""
        print(f"{name}\n    {record['type']}{unit}. {record['meaning']}")
