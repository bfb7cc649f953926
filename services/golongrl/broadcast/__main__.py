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

from golongrl import serving
from golongrl.broadcast.app import create_app
from golongrl.telemetry.logging import configure

# A worker whose host is lost closes nothing: its connection counts as closed after 15 s without a sign.
_KEEPALIVE = {socket.TCP_KEEPIDLE: 5, socket.TCP_KEEPINTVL: 5, socket.TCP_KEEPCNT: 2}


def main(address: str, port: int, folder: str) -> None:
    """Serve until the parent ends."""
    configure("sender")
    app = create_app(address, os.environ["GOLONGRL_SENDER_TOKEN"])

    def leave_with_parent() -> None:
        sys.stdin.read()
        shutil.rmtree(folder, ignore_errors=True)
        os._exit(0)

    threading.Thread(target=leave_with_parent, name="parent", daemon=True).start()
    with listen(port) as listener:
        print(json.dumps({"port": listener.getsockname()[1]}), flush=True)
        serving.run(app, listener, grace_s=5)


def listen(port: int) -> socket.socket:
    """A socket for IPv4 and, where the host has it, IPv6, whose connections notice a lost peer."""
    if socket.has_dualstack_ipv6():
        listener = socket.create_server(("", port), family=socket.AF_INET6, dualstack_ipv6=True)
    else:
        listener = socket.create_server(("", port))
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, value in _KEEPALIVE.items():  # inherited by what it accepts
        listener.setsockopt(socket.IPPROTO_TCP, option, value)
    return listener


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), sys.argv[3])
