"""`python -m golongrl.broadcast ADDRESS PORT FOLDER`: the sender's process, started by the learner's first rank.

Port 0 takes a free one; the first line on stdout says which. It ends with its parent, when stdin is closed, and takes
FOLDER, where the weights are handed over, with it.
"""

import json
import os
import shutil
import socket
import sys
import threading

import uvicorn

from golongrl.broadcast.app import create_app
from golongrl.telemetry.logging import configure


def main(address: str, port: int, folder: str) -> None:
    configure("sender")
    app = create_app(address, os.environ["GOLONGRL_SENDER_TOKEN"])
    server = uvicorn.Server(uvicorn.Config(app, log_config=None, access_log=False, timeout_graceful_shutdown=5))

    def leave_with_parent() -> None:
        sys.stdin.read()
        shutil.rmtree(folder, ignore_errors=True)
        os._exit(0)

    threading.Thread(target=leave_with_parent, name="parent", daemon=True).start()
    with socket.create_server(("0.0.0.0", port)) as listener:
        print(json.dumps({"port": listener.getsockname()[1]}), flush=True)
        server.run(sockets=[listener])


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), sys.argv[3])
