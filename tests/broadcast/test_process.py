"""The sender beside the first rank."""

import errno
import os
import socket
import tempfile
from pathlib import Path

import pytest

from golongrl.broadcast import process
from golongrl.broadcast.__main__ import listen
from golongrl.broadcast.process import POD_IP, reachable


def test_a_sender_is_where_the_ranks_meet_unless_a_pod_says_where_it_is() -> None:
    assert reachable({"MASTER_ADDR": "10.0.0.7"}) == "10.0.0.7"
    assert reachable({"MASTER_ADDR": "127.0.0.1", POD_IP: "10.0.0.9"}) == "10.0.0.9"


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_it_listens_to_both_and_notices_a_lost_peer(host: str) -> None:
    with listen(0) as listener:
        try:
            client = socket.create_connection((host, listener.getsockname()[1]))
        except OSError as error:
            if host != "::1" or error.errno not in (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT):
                raise
            pytest.skip("this host has no IPv6 loopback")
        with client, listener.accept()[0] as accepted:
            assert accepted.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
            assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) == 5


def test_a_folder_that_another_sweep_took_before_it_was_claimed_is_made_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    taken: list[Path] = []

    def swept_once(folder: Path) -> int:
        if not taken:
            taken.append(folder)
            process._sweep()
        return claim(folder)

    claim = process._claim
    # The sweep itself claims, too: by the real one.
    monkeypatch.setattr(process, "_claim", lambda folder: swept_once(folder) if folder not in taken else claim(folder))
    folder, handle = process._own_folder()
    process._sweep()
    assert folder.is_dir()
    assert folder not in taken
    assert not taken[0].exists()
    os.close(handle)
