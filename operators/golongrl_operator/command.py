"""`golongrl operator`. Imports stay inside the function: `--help` is fast."""

from pathlib import Path
from typing import Annotated

import typer

from golongrl.errors import InputError


def operator(
    release: Annotated[str, typer.Option(envvar="GOLONGRL_RELEASE", help="Helm release whose TrainingRuns it runs.")],
    values: Annotated[
        Path | None,
        typer.Option(help="The release's values, as the chart mounts them; absent are the chart's defaults."),
    ] = None,
    namespace: Annotated[
        str | None, typer.Option("--namespace", "-n", help="Namespace of the release; absent is the pod's own.")
    ] = None,
    host: Annotated[str, typer.Option(help="Address of /healthz and /metrics.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port of /healthz and /metrics.")] = 8090,
) -> None:
    """Train what the TrainingRuns of a release ask for: make, watch, restart and replace their RayJobs.

    Speaks to the API server of its service account, or of the kubeconfig. GOLONGRL_REDIS_PASSWORD opens the queue.

    Example: golongrl operator --release golongrl --namespace golongrl --values values.yaml
    """
    import asyncio
    import logging

    from golongrl.kubernetes.rayjob.load import load_values, read_tree
    from golongrl.kubernetes.rayjob.naming import Release
    from golongrl.telemetry.logging import configure

    try:
        from golongrl_operator.app import loop_of, operate
        from golongrl_operator.build import Site
        from golongrl_operator.kube import Kube
    except ModuleNotFoundError as error:
        raise InputError(f"the operator needs {error.name}: pip install 'golongrl[operator]'") from error

    tree = read_tree(values) if values else {}
    load_values(overrides=tree)
    configure("operator")
    # A line for each call of each pass.
    logging.getLogger("httpx2").setLevel(logging.WARNING)

    async def serve() -> None:
        kube = Kube(namespace)
        site = Site(Release(release, kube.namespace), tree)
        await operate(loop_of(site, kube), host, port)

    asyncio.run(serve())
