"""`golongrl operator`. Imports stay inside the function: `--help` is fast."""

from pathlib import Path
from typing import Annotated

import typer

from golongrl.errors import InputError


def operator(
    release: Annotated[str, typer.Option(envvar="GOLONGRL_RELEASE", help="Helm release whose TrainingRuns it trains.")],
    site: Annotated[
        Path,
        typer.Option(help="The release's queue, recipe and RayJob: release.json of its ConfigMap NAME-operator."),
    ],
    namespace: Annotated[
        str | None,
        typer.Option("--namespace", "-n", help="Namespace of the release; the pod's or the context's by default."),
    ] = None,
    host: Annotated[str, typer.Option(help="Address of /healthz and /metrics.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port of /healthz and /metrics.")] = 8090,
) -> None:
    """Train the TrainingRuns of a release: create, watch, restart and replace their RayJobs.

    Uses the API server of its service account, or of the kubeconfig. GOLONGRL_REDIS_PASSWORD is the queue's password.
    """
    import asyncio

    from golongrl.kubernetes.rayjob.site import read_site
    from golongrl.telemetry.logging import configure

    try:
        from golongrl.kubernetes.cluster import connect
        from golongrl_operator.app import Loop, operate
        from golongrl_operator.kube import MANAGER, Kube
    except ModuleNotFoundError as error:
        raise InputError(f"the operator needs {error.name}: pip install 'golongrl[operator]'") from error

    try:
        text = site.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"--site {site}: cannot be read: {error}") from error
    read_site(text, f"--site {site}", release, "")
    configure("operator")

    async def serve() -> None:
        async with connect(namespace, manager=MANAGER) as calls:
            release_site = read_site(text, f"--site {site}", release, calls.namespace)
            await operate(Loop(release_site, Kube(calls)), host, port)

    asyncio.run(serve())
