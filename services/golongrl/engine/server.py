"""The process around the application: bind, load the model, serve until told to stop, report whether it ended well."""

import os
import signal
from contextlib import closing

from golongrl import serving
from golongrl.engine.app import create_app
from golongrl.engine.config import EngineConfig
from golongrl.telemetry.logging import configure
from golongrl.telemetry.tracing import endpoint_of, tracing


def serve(config: EngineConfig) -> int:
    """Serve until SIGTERM or SIGINT, finishing open requests for up to `drain_s`; the exit code is 1 if the model
    thread failed.

    Raises:
        InputError: the address cannot be bound (found before the model is loaded), or the model cannot be served.
    """
    configure("engine", os.environ.get("GOLONGRL_RUN"), traced=bool(endpoint_of(None)))
    with (
        serving.bind(config.host, config.port) as listener,
        closing(tracing("engine", os.environ.get("GOLONGRL_RUN", ""))) as traced,
    ):
        app = create_app(config, lambda: os.kill(os.getpid(), signal.SIGTERM), traced)
        serving.run(app, listener, grace_s=int(config.drain_s))
    return 1 if app.state.serving.engine.failed else 0
