"""The process around the application: listen, serve until told to stop, say whether it ended well."""

import socket

import uvicorn

from golongrl.engine.app import create_app
from golongrl.engine.config import EngineConfig
from golongrl.errors import GolongrlError
from golongrl.telemetry.logging import configure


def serve(config: EngineConfig) -> int:
    """Serve until SIGTERM or SIGINT, finishing open requests for up to `drain_s`; the exit code is 1 if the model
    thread failed.

    Raises:
        ModelFolderError: the model cannot be served.
        GolongrlError: the address is in use or not ours; found before the model is loaded.
    """
    configure("engine")
    with socket.socket(socket.AF_INET6 if ":" in config.host else socket.AF_INET) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((config.host, config.port))
        except OSError as error:
            raise GolongrlError(f"cannot listen on {config.host}:{config.port}: {error.strerror or error}") from error

        def stop() -> None:
            server.should_exit = True

        app = create_app(config, on_death=stop)
        server = uvicorn.Server(
            uvicorn.Config(
                app, log_config=None, access_log=False, timeout_graceful_shutdown=int(config.drain_s), lifespan="on"
            )
        )
        server.run(sockets=[listener])
    return 0 if not app.state.serving.engine.failed else 1
