"""`golongrl operator`. Imports stay inside the function: `--help` is fast."""

from pathlib import Path
from typing import Annotated

import typer

from golongrl.errors import InputError
from golongrl.reading import read_text
from golongrl.recipe.strict_yaml import MAX_BYTES


def operator(
    release: Annotated[str, typer.Option(envvar="GOLONGRL_RELEASE", help="Helm release whose TrainingRuns it trains.")],
    site: Annotated[
        Path | None,
        typer.Option(help="The release's queue, recipe, RayJob and pool: release.json of its ConfigMap NAME-operator."),
    ] = None,
    dev: Annotated[
        bool,
        typer.Option(
            "--dev",
            help="Run outside the cluster, with a kubeconfig: reads the ConfigMap itself, and asks the queue through "
            "the run's pods. The release must have operator.enabled or operator.external; stop the operator in the "
            "cluster, or this one waits for its lease.",
        ),
    ] = False,
    namespace: Annotated[
        str | None,
        typer.Option("--namespace", "-n", help="Namespace of the release; the pod's or the context's by default."),
    ] = None,
    host: Annotated[str, typer.Option(help="Address of /healthz and /metrics.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port of /healthz and /metrics.")] = 8090,
) -> None:
    """Train the TrainingRuns of a release: make and restart their RayJobs, size their pools, replace sick engines.

    Uses the API server of its service account, or of the kubeconfig. GOLONGRL_REDIS_PASSWORD is the queue's password.

    Example: golongrl operator --dev --release golongrl -n golongrl
    """
    import asyncio

    from golongrl.kubernetes.names import check_names
    from golongrl.kubernetes.rayjob.site import read_site
    from golongrl.telemetry.logging import configure

    try:
        from golongrl.kubernetes.cluster import connect
        from golongrl_operator.app import Loop, operate
        from golongrl_operator.kube import MANAGER, Kube, ask_inside, find_site
        from golongrl_operator.lease import LeaderLease, identity, lease_name
    except ModuleNotFoundError as error:
        raise InputError(f"the operator needs {error.name}: pip install 'golongrl[operator]'") from error

    check_names(release, namespace)
    if dev == (site is not None):
        raise InputError("give one of --site FILE (in the cluster) and --dev (outside of it)")
    text = "" if site is None else _read(site)
    if not dev:
        read_site(text, f"--site {site}", release, "")
    configure("operator")

    async def serve() -> None:
        async with connect(namespace, manager=MANAGER) as calls:
            origin = f"--site {site}" if site else f"release {release}"
            found = await find_site(calls, release) if dev else text
            loop = Loop(
                read_site(found, origin, release, calls.namespace),
                Kube(calls),
                LeaderLease(calls, lease_name(release), identity()),
                (lambda pods: ask_inside(calls, pods)) if dev else None,
            )
            await operate(loop, host, port)

    asyncio.run(serve())


def _read(site: Path) -> str:
    try:
        return read_text(site, MAX_BYTES)
    except InputError as error:
        raise InputError(f"--site {error}") from error
    except OSError as error:
        raise InputError(f"--site {site}: cannot be read: {error.strerror or error}") from error
