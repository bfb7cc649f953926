"""`golongrl metrics` (the catalogue, how to scrape a local run) and `golongrl dashboards` (the chart's, as files)."""

import json
from pathlib import Path
from typing import Annotated

import typer

from golongrl import files
from golongrl.errors import InputError, writing_to

app = typer.Typer(
    help="Prometheus metrics: what every service exports.",
    epilog="Example: `golongrl metrics list --service learner`",
    no_args_is_help=True,
)

dashboards = typer.Typer(
    help="Grafana dashboards: the same files that the chart installs.",
    epilog="Example: `golongrl dashboards export grafana/`",
    no_args_is_help=True,
)


@dashboards.callback()
def _dashboards() -> None:
    """Without it, typer would take the only command for the whole."""


@dashboards.command(epilog="Example: `golongrl dashboards export grafana/`")
def export(
    folder: Annotated[Path, typer.Argument(help="Folder for the JSON files; made if it is not there.")],
) -> None:
    """Write the dashboards as JSON, for Grafana's import or its provisioning from files."""
    from golongrl.kubernetes.rayjob.render import chart

    found = sorted((chart() / "files" / "dashboards").glob("*.json"))
    for source in found:
        if _is_another(folder / source.name, source):
            raise InputError(f"dashboards export: {folder / source.name} is another file; move it away first")
    with writing_to(f"dashboards export {folder}"):
        folder.mkdir(parents=True, exist_ok=True)
        for source in found:
            files.write_text(folder / source.name, source.read_text("utf-8"))
    print(f"{len(found)} dashboards in {folder}")


def _is_another(path: Path, source: Path) -> bool:
    """Whether something else than an older copy of `source` is there."""
    if not path.exists():
        return False
    try:
        uid = json.loads(path.read_text("utf-8"))["uid"]
    except (OSError, ValueError, LookupError, TypeError):
        return True
    return bool(uid != json.loads(source.read_text("utf-8"))["uid"])


@app.command("scrape-config", epilog="Example: `golongrl metrics scrape-config mine > prometheus.yml`")
def scrape_config(
    name: Annotated[str, typer.Argument(help="Name of a run of `golongrl train`.")],
    out: Annotated[Path, typer.Option(help="Folder of runs.")] = Path("runs"),
    interval: Annotated[str, typer.Option(help="Scrape interval, as a Prometheus duration.")] = "5s",
) -> None:
    """Print a Prometheus configuration that scrapes a run on this machine; its ports are those of its last start."""
    from golongrl.monitoring.scrape import config
    from golongrl.telemetry.run_info import RunInfo

    info = RunInfo.read(out / name)
    if info is None:
        raise InputError(f"metrics scrape-config {name}: no run in {out / name}")
    if not info.ports:
        raise InputError(f"metrics scrape-config {name}: its services have not been started yet")
    print(config(info.run, info.ports, interval), end="")


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
