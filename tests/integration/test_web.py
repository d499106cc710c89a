"""The web server against real sockets: clients that behave, that are stuck, and too many of them."""

from __future__ import annotations

import http.client
import shutil
import socket
import subprocess
import threading
import time
from contextlib import ExitStack, suppress
from typing import Iterator

import pytest

from defectd.clock import monotonic_ns
from defectd.errors import StartupError
from defectd.telemetry.sample import DeviceSample, Frequency, ThrottleSigns
from defectd.web import server as web
from defectd.web.metrics import Metrics
from defectd.web.server import MAX_CONNECTIONS, WebServer
from unit.watch.wire_events import inspection

ASK = b"GET /readyz HTTP/1.1\r\nHost: x\r\n\r\n"


def serve(metrics: Metrics, host: str = "127.0.0.1", port: int = 0) -> WebServer:
    return WebServer(host, port, metrics, ready=lambda: (True, "inspecting"), alive=lambda: (True, "alive"))


@pytest.fixture
def metrics() -> Metrics:
    return Metrics(["top"])


@pytest.fixture
def server(metrics: Metrics) -> Iterator[WebServer]:
    made = serve(metrics)
    made.start()
    yield made
    made.stop()


def get(server: WebServer, path: str, method: str = "GET", body: bytes | None = None) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=3)
    try:
        connection.request(method, path, body)
        response = connection.getresponse()
        return response.status, response.read()
    finally:
        connection.close()


def connect(server: WebServer) -> socket.socket:
    return socket.create_connection(("127.0.0.1", server.port), timeout=3)


def is_closed(client: socket.socket, within_s: float = 3.0) -> bool:
    client.settimeout(within_s)
    try:
        return client.recv(1) == b""
    except ConnectionError:
        return True
    except socket.timeout:
        return False


def test_the_three_pages_are_there(server, metrics):
    metrics.inspected(inspection())
    assert get(server, "/healthz") == (200, b"alive\n")
    assert get(server, "/readyz") == (200, b"inspecting\n")
    status, page = get(server, "/metrics")
    assert status == 200 and b'defectd_units_total{camera="top",verdict="passed"} 1.0' in page
    assert get(server, "/")[0] == 404


def test_a_request_that_comes_byte_by_byte_is_answered(server):
    with connect(server) as client:
        for byte in ASK:
            client.sendall(bytes([byte]))
        assert client.recv(100).startswith(b"HTTP/1.1 200")


def test_an_answer_is_not_lost_when_the_client_says_more_than_was_asked(server):
    assert get(server, "/metrics", "POST", b"x" * 20_000_000)[0] == 405


def test_a_head_that_does_not_end_is_refused(server):
    with connect(server) as client:
        client.sendall(b"GET /metrics HTTP/1.1\r\n" + b"X: y\r\n" * 3000)
        assert client.recv(100).startswith(b"HTTP/1.1 431")


def test_clients_that_are_stuck_do_not_keep_another_one_out(server):
    with ExitStack() as stack:
        stuck = [stack.enter_context(connect(server)) for _ in range(3 * MAX_CONNECTIONS)]
        for client in stuck[-MAX_CONNECTIONS:]:
            client.sendall(b"GET /metr")
        assert get(server, "/healthz")[0] == 200
        assert all(is_closed(client) for client in stuck[: 2 * MAX_CONNECTIONS])


def test_a_client_that_drips_is_cut_off_after_its_time(monkeypatch, metrics):
    monkeypatch.setattr(web, "_CONNECTION_S", 0.4)
    server = serve(metrics)
    server.start()
    began_ns = monotonic_ns()
    try:
        with connect(server) as client:
            closed = False
            while not closed and monotonic_ns() - began_ns < 5e9:
                try:
                    client.sendall(b"x")
                    closed = is_closed(client, 0.05)
                except ConnectionError:
                    closed = True
            assert closed
            assert 0.3e9 < monotonic_ns() - began_ns < 3e9
    finally:
        server.stop()


def test_a_client_that_never_reads_is_cut_off_after_its_time(monkeypatch):
    class Endless:
        def exposition(self) -> bytes:
            return b"x" * 50_000_000

    monkeypatch.setattr(web, "_CONNECTION_S", 0.4)
    server = WebServer("127.0.0.1", 0, Endless(), lambda: (True, ""), lambda: (True, "alive"))
    server.start()
    try:
        with connect(server) as client:
            client.sendall(b"GET /metrics HTTP/1.1\r\n\r\n")
            assert get(server, "/healthz") == (200, b"alive\n")
            time.sleep(0.8)
            received = 0
            with suppress(ConnectionError):  # a reset
                while chunk := client.recv(1 << 20):
                    received += len(chunk)
            assert received < 50_000_000
    finally:
        server.stop()


def test_units_are_counted_while_the_page_is_read(server, metrics):
    event = inspection()
    workers = [threading.Thread(target=lambda: [metrics.inspected(event) for _ in range(500)]) for _ in range(4)]
    for worker in workers:
        worker.start()
    while any(worker.is_alive() for worker in workers):
        assert get(server, "/metrics")[0] == 200
    for worker in workers:
        worker.join()
    assert b'defectd_units_total{camera="top",verdict="passed"} 2000.0' in get(server, "/metrics")[1]


def test_a_port_in_use_is_an_error_that_names_the_setting(server, metrics):
    with pytest.raises(StartupError, match=rf"web\.port: {server.port} is in use on 127\.0\.0\.1; set another \[web\]"):
        second = serve(metrics, port=server.port)
        try:
            second.start()
        finally:
            second.stop()


def test_a_port_that_becomes_free_is_taken_then_and_told(server, metrics):
    second, listens = serve(metrics, port=server.port), threading.Event()
    with pytest.raises(StartupError):
        second.start()
    second.start_later(listens.set, every_s=0.05)
    assert not listens.wait(0.3)
    server.stop()
    assert listens.wait(5)
    assert get(second, "/healthz")[0] == 200
    second.stop()


def test_it_stops_at_once_while_it_waits_for_its_port(server, metrics):
    second = serve(metrics, port=server.port)
    second.start_later(lambda: None, every_s=60.0)
    began_ns = monotonic_ns()
    second.stop()
    assert monotonic_ns() - began_ns < 1e9


@pytest.mark.parametrize("host", ["192.0.2.1", "no-such-host.invalid", "x" * 70 + ".invalid"])
def test_an_address_that_is_not_ours_is_an_error_that_names_the_setting(host, metrics):
    server = serve(metrics, host=host)
    with pytest.raises(StartupError, match=r"web\.host: .* expected an address of this machine"):
        server.start()
    server.stop()


def test_it_stops_at_once_with_clients_connected_and_gives_its_port_back(server, metrics):
    with connect(server) as client:
        assert get(server, "/healthz")[0] == 200
        began_ns = monotonic_ns()
        server.stop()
        server.stop()
        assert monotonic_ns() - began_ns < 1e9
        assert is_closed(client)
    again = serve(metrics, port=server.port)
    again.start()
    assert get(again, "/healthz")[0] == 200
    again.stop()


@pytest.mark.skipif(shutil.which("promtool") is None, reason="needs promtool, of Debian's package prometheus")
def test_promtool_has_nothing_to_say_about_names_and_units(server, metrics):
    metrics.inspected(inspection())
    metrics.inspected(inspection(verdict="error", error="frame_missing", model=None))
    metrics.set_outbox(pending=1, oldest_s=1.0, size_bytes=1, dropped=1, dead_letters=1)
    metrics.set_worker_exits("engine", {"hung": 1})
    clock = Frequency(1.0, 1.0, 1.0, 1.0, "schedutil")
    sample = DeviceSample(
        at_ns=monotonic_ns(), temps_c={"gpu": 1.0}, hottest_c=1.0, gpu_load=0.5, gpu=clock, cpu=clock, emc_mhz=1.0,
        power_w={"VDD": 1.0}, total_power_w=1.0, fan_rpm=1.0, fan_share=1.0, mem_available_mb=1.0, mem_total_mb=1.0,
        nvmap_mb=1.0, swap_used_mb=1.0, disk_free_mb=1.0, disk_total_mb=1.0, disk_wear=0.5, power_mode="MAXN",
        throttle=ThrottleSigns(oc_events={"oc1": 1}), clock_synced=True, uptime_s=1.0, rss_mb={"engine": 1.0},
    )  # fmt: skip
    metrics.sampled(sample, throttled=True)
    page = get(server, "/metrics")[1]
    checked = subprocess.run(["promtool", "check", "metrics"], input=page, capture_output=True, timeout=30, check=False)
    assert (checked.returncode, checked.stdout + checked.stderr) == (0, b"")
