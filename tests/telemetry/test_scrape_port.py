"""A job's scrape port: what it answers, and addresses that cannot be had."""

import socket
import threading
from contextlib import ExitStack

import httpx
import pytest
from prometheus_client import CollectorRegistry, Histogram

from golongrl.errors import InputError
from golongrl.telemetry.scrape_port import scraped


def test_it_serves_text_and_exemplars_to_who_accepts_openmetrics(capsys: pytest.CaptureFixture[str]) -> None:
    registry = CollectorRegistry()
    Histogram("x_seconds", "x.", registry=registry).observe(1.0, {"trace_id": "abc"})
    with scraped(registry, "127.0.0.1", 0) as port:
        url = f"http://127.0.0.1:{port}/metrics"
        plain = httpx.get(url, timeout=60)
        said = capsys.readouterr().err
        rich = httpx.get(url, timeout=60, headers={"Accept": "application/openmetrics-text; version=1.0.0"})
    assert url in said
    assert "x_seconds_count 1.0" in plain.text
    assert 'trace_id="abc"' not in plain.text
    assert 'trace_id="abc"' in rich.text
    with pytest.raises(httpx.ConnectError):
        httpx.get(url, timeout=60)


def test_many_slow_clients_cost_a_few_threads_and_a_scrape_is_answered(capfd: pytest.CaptureFixture[str]) -> None:
    threads = threading.active_count()
    with scraped(CollectorRegistry(), "127.0.0.1", 0) as port, ExitStack() as stack:
        for sent in [b"", b"GET / HT", b"POST / HTTP/1.1\r\nContent-Length: 9\r\n\r\n"] * 60:
            client = stack.enter_context(socket.create_connection(("127.0.0.1", port), timeout=60))
            client.sendall(sent)
        assert httpx.get(f"http://127.0.0.1:{port}/metrics", timeout=60).status_code == 200
        while threading.active_count() > threads + 50:
            threading.Event().wait(0.05)
    assert "Traceback" not in capfd.readouterr().err


def test_no_port_serves_nothing() -> None:
    with scraped(CollectorRegistry(), "127.0.0.1", None) as port:
        assert port is None


@pytest.mark.parametrize("host", ["127.0.0.1", "192.0.2.1", "no.such.host.invalid"])
def test_an_address_that_cannot_be_had_is_one_line(host: str) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        said = rf"^--metrics-host {host} --metrics-port {port}: .+; choose"
        with pytest.raises(InputError, match=said), scraped(CollectorRegistry(), host, port):
            pass
