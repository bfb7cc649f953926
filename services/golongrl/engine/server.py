"""The process around the application: bind, load the model, serve until told to stop, report whether it ended well."""

import os
import signal

from golongrl import serving
from golongrl.engine.app import create_app
from golongrl.engine.config import EngineConfig
from golongrl.telemetry.logging import configure


def serve(config: EngineConfig) -> int:
    """Serve until SIGTERM or SIGINT, finishing open requests for up to `drain_s`; the exit code is 1 if the model
    thread failed.

    Raises:
        InputError: the address cannot be bound (found before the model is loaded), or the model cannot be served.
    """
    configure("engine")
    with serving.bind(config.host, config.port) as listener:
        app = create_app(config, on_death=lambda: os.kill(os.getpid(), signal.SIGTERM))
        serving.run(app, listener, grace_s=int(config.drain_s))
    return 1 if app.state.serving.engine.failed else 0
