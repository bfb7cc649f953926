"""`golongrl render`, `golongrl deploy` and `golongrl status`. Imports stay inside the functions: `--help` is fast."""

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from golongrl.errors import InputError, printable

if TYPE_CHECKING:
    from golongrl.kubernetes.deploy.helm import Deployment
    from golongrl.kubernetes.look.gather import ReleaseLook

render = typer.Typer(
    help="Kubernetes objects as YAML, for `kubectl apply`.",
    epilog="Example: `golongrl render rayjob qwen3-4b-grpo > rayjob.yaml`",
    no_args_is_help=True,
)
deploy = typer.Typer(
    help="Install, upgrade and remove the whole loop on a Kubernetes cluster, with helm.",
    epilog="Example: `golongrl deploy install quickstart -n golongrl --dry-run`",
    no_args_is_help=True,
)

Files = Annotated[
    list[Path] | None, typer.Option("--values", "-f", help="Values file of the chart; repeatable, later ones win.")
]
Settings = Annotated[list[str] | None, typer.Option("--set", help="Value, as `rollout.replicas=4`; repeatable.")]
Release = Annotated[str, typer.Option("--release", help="Name of the helm release.")]
Namespace = Annotated[str, typer.Option("--namespace", "-n", help="Namespace of the release.")]
Context = Annotated[str | None, typer.Option(help="Context of the kubeconfig.")]


@render.callback()
def _render() -> None:
    """Kubernetes objects as YAML, for `kubectl apply`."""


@render.command(epilog="Example: `golongrl render rayjob qwen3-4b-grpo > rayjob.yaml`")
def rayjob(
    recipe: Annotated[
        str, typer.Argument(help="Packaged recipe, whose preset of the chart comes before -f, or a YAML file.")
    ],
    values: Files = None,
    overrides: Annotated[
        list[str] | None, typer.Option("--set", help="Override of the recipe, as `learner.steps=10`; repeatable.")
    ] = None,
    release: Release = "golongrl",
    namespace: Annotated[str, typer.Option("--namespace", "-n", help="Namespace; empty leaves it to kubectl.")] = "",
) -> None:
    """Print a RayJob that trains a recipe next to a release of the chart that has no learner of its own."""
    from golongrl.kubernetes.rayjob.render import rayjob_yaml

    print(rayjob_yaml(recipe, release, namespace, values or (), overrides or ()), end="")


@render.command(epilog="Example: `golongrl render evaljob long-context --release mine > evaljob.yaml`")
def evaljob(
    suite: Annotated[str, typer.Argument(help="Packaged suite or benchmark; see `golongrl eval list`.")],
    values: Files = None,
    settings: Settings = None,
    release: Release = "golongrl",
    namespace: Annotated[str, typer.Option("--namespace", "-n", help="Namespace; empty leaves it to kubectl.")] = "",
) -> None:
    """Print the Job that evaluates the newest weights of a release, with its account and network policy."""
    from golongrl.kubernetes.evaljob import evaljob_yaml

    print(evaljob_yaml(suite, release, namespace, values or (), settings or ()), end="")


def _deployment(
    release: str, namespace: str, context: str | None, timeout: str = "10m", *, new: bool = False
) -> "Deployment":
    from golongrl.kubernetes.names import check_names

    check_names(release, namespace, new=new)
    try:
        from golongrl.kubernetes.deploy.helm import Deployment
    except ModuleNotFoundError as error:
        raise InputError(f"deploy needs {error.name}: pip install 'golongrl[deploy]'") from error
    return Deployment(release, namespace, context, timeout)


def _preset(recipe: str | None, values: list[Path] | None) -> tuple[list[Path], list[str]]:
    from golongrl.kubernetes.rayjob.render import preset

    if recipe is None:
        return list(values or ()), []
    path = preset(recipe)
    return [*([path] if path else []), *(values or ())], [f"recipePreset={recipe}"]


Recipe = Annotated[str | None, typer.Argument(help="Packaged recipe; its preset of the chart comes before -f.")]


@deploy.command(
    "upgrade",
    help="Upgrade an existing release. Volumes, samples and the Secret are kept; give all values again.",
    epilog="Example: `golongrl deploy upgrade -f mine.yaml -n golongrl --dry-run`",
)
@deploy.command(
    "install",
    help="Install the loop, or upgrade it if the release exists.",
    epilog="Example: `golongrl deploy install quickstart -n golongrl --dry-run`",
)
def put(
    call: typer.Context,
    recipe: Recipe = None,
    values: Files = None,
    settings: Settings = None,
    release: Release = "golongrl",
    namespace: Namespace = "default",
    context: Context = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only print what would change.")] = False,
    wait: Annotated[
        bool, typer.Option(help="Wait until every pod is ready, and a plain Job's learner has ended.")
    ] = False,
    timeout: Annotated[str, typer.Option(help="Longest that helm may take, as 90s or 1h30m.")] = "10m",
) -> None:
    """Both do the same; `upgrade` first checks that the release exists."""
    if not re.fullmatch(r"(\d+(\.\d+)?(h|m|s|ms))+", timeout):
        raise InputError(f"--timeout {timeout!r}: give a number with a unit, as 90s or 1h30m")
    deployment = _deployment(release, namespace, context, timeout, new=call.command.name == "install")
    from golongrl.kubernetes.deploy.helm import user_values

    files, preset = _preset(recipe, values)
    chosen = user_values(files, [*preset, *(settings or ())])
    if call.command.name == "upgrade":
        deployment.status()
    if dry_run:
        print("\n".join(deployment.preview(chosen)))
    else:
        print(deployment.apply(chosen, wait=wait))


@deploy.command("status", epilog="Example: `golongrl deploy status -n golongrl`")
def deploy_status(release: Release = "golongrl", namespace: Namespace = "default", context: Context = None) -> None:
    """Show Helm's record of the release. `golongrl status --release` shows its pods and the queue."""
    record = _deployment(release, namespace, context).status()
    info = record["info"]
    print(f"{release} in {namespace}: {info['status']}, revision {record.get('version', '?')}, {info['last_deployed']}")


@deploy.command(epilog="Example: `golongrl deploy uninstall -n golongrl`")
def uninstall(release: Release = "golongrl", namespace: Namespace = "default", context: Context = None) -> None:
    """Remove a release. Checkpoints, samples and the Secret are kept for the next release of that name."""
    left = _deployment(release, namespace, context).uninstall()
    print(f"{release}: removed. Its volumes and its Secret are kept: kubectl -n {namespace} get pvc,secret")
    if left:
        print(printable(left))


def status(
    release: Annotated[
        str | None, typer.Option("--release", help="Helm release to look at, through the cluster's API server.")
    ] = None,
    namespace: Annotated[
        str | None, typer.Option("--namespace", "-n", help="Namespace of the release; the context's by default.")
    ] = None,
    context: Context = None,
    redis_url: Annotated[
        str | None, typer.Option(envvar="GOLONGRL_REDIS_URL", help="Queue to ask directly, without a cluster.")
    ] = None,
    run: Annotated[str | None, typer.Option(envvar="GOLONGRL_RUN", help="The run's name, with --redis-url.")] = None,
    name: Annotated[str | None, typer.Option(help="A run of `golongrl train` on this machine.")] = None,
    out: Annotated[Path, typer.Option(help="Folder of runs, with --name.")] = Path("runs"),
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object instead of text.")] = False,
) -> None:
    """Show every process, the queue, staleness and what is stuck: of a release, a local run, or a Redis."""
    import asyncio
    from dataclasses import asdict

    from golongrl.kubernetes.look.queue import look_at_queue
    from golongrl.kubernetes.look.status import lines
    from golongrl.queue.address import naming_environment
    from golongrl.telemetry.logging import configure

    # The error names what was waited for; a log line for each try would hide it, and spoil --json.
    configure("status", run, level="ERROR")
    if name is not None and release is not None:
        raise InputError("status: give --release (a run on Kubernetes) or --name (a run on this machine), not both")
    if name is not None:
        _show_local(out / name, as_json=as_json)
        return
    if release is not None:
        seen, picture = asyncio.run(_look_at_release(release, namespace, context))
    elif redis_url is not None and run is not None:
        with naming_environment(redis_url):
            seen, picture = None, asyncio.run(look_at_queue(redis_url, run))
    else:
        raise InputError("status: give --release NAME, --name RUN, or --redis-url and --run")
    queue, services = (picture or {}).get("queue"), (picture or {}).get("services")
    found = {"pods": None} if seen is None else asdict(seen)
    if as_json:
        print(json.dumps({"refused": [], **found, "queue": queue, "services": services}))
    elif seen is None:
        print(printable("\n".join(lines(None, queue, services))))
    else:
        told = lines(
            seen.pods,
            queue,
            services,
            seen.refused,
            runs=seen.runs,
            held=seen.held,
            unknown=seen.unknown,
            done=seen.done,
        )
        print(printable("\n".join(told)))


def _show_local(folder: Path, *, as_json: bool) -> None:
    import asyncio
    from dataclasses import asdict

    from golongrl.kubernetes.look import local_run
    from golongrl.kubernetes.look.queue import look_at_queue
    from golongrl.kubernetes.look.status import lines
    from golongrl.queue import QueueError
    from golongrl.redis_url import with_password
    from golongrl.telemetry import history
    from golongrl.telemetry.watch_record import WatchRecord

    info = local_run.read(folder)
    lives = local_run.alive(info)
    picture: dict[str, Any] = {}
    trouble = ""
    if lives and info.state == "running":
        try:
            picture = asyncio.run(look_at_queue(with_password(info.redis_url, local_run.password(info)), info.run))
        except QueueError as error:  # the run may be starting
            trouble = f"queue: {error}"
    queue, services = picture.get("queue"), picture.get("services")
    record = WatchRecord.read(folder)
    stalls = local_run.stalls(info, record, lives=lives)
    away = local_run.away(record, services or [])
    if as_json:
        shown = {**asdict(info), "lives": lives}
        found = {"run": shown, "queue": queue, "services": services, "stalls": stalls, "away": away}
        print(json.dumps(found))
        return
    records, wanted = history.read(folder / "metrics.jsonl"), local_run.wanted_steps(folder)
    print(local_run.headline(info, records, lives=lives, wanted=wanted, out=folder.parent))
    if picture:
        print(printable("\n".join(lines(None, queue, services, stalls, away=away, chains=record is None))))
    else:
        told = [*filter(None, [trouble]), *(f"stuck: {stall}" for stall in stalls)]
        print(printable("\n".join(told)))


async def _look_at_release(
    release: str, namespace: str | None, context: str | None
) -> "tuple[ReleaseLook, dict[str, Any] | None]":
    from golongrl.kubernetes.names import check_names

    check_names(release, namespace)
    try:
        from golongrl.kubernetes.cluster import connect
        from golongrl.kubernetes.look.gather import ask, look
    except ModuleNotFoundError as error:
        raise InputError(f"status of a release needs {error.name}: pip install 'golongrl[deploy]'") from error
    async with connect(namespace, context) as calls:
        seen = await look(calls, release)
        return seen, await ask(calls, seen)
