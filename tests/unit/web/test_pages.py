"""From the head of a request to the bytes of the response, without a network."""

from __future__ import annotations

import pytest

from defectd.web.server import Pages


class Page:
    def exposition(self) -> bytes:
        return b"defectd_up 1\n"


class Broken:
    def exposition(self) -> bytes:
        raise RuntimeError("a bug")


def ask(request_line: str, *, ready=(True, "inspecting"), alive=(True, "all threads make progress"), metrics=None):
    """Status line, headers and body of the answer."""
    pages = Pages(metrics or Page(), lambda: ready, lambda: alive)
    head, _, body = pages.answer(f"{request_line}\r\nHost: x\r\n\r\n".encode("latin-1")).partition(b"\r\n\r\n")
    status, *headers = head.decode().split("\r\n")
    return status, dict(header.split(": ", 1) for header in headers), body


def test_metrics_are_text_of_prometheus():
    status, headers, body = ask("GET /metrics HTTP/1.1")
    assert status == "HTTP/1.1 200 OK"
    assert headers["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"
    assert headers["Content-Length"] == str(len(body)) and body == b"defectd_up 1\n"


def test_a_query_does_not_change_the_page():
    assert ask("GET /metrics?x=1 HTTP/1.0")[2] == b"defectd_up 1\n"


@pytest.mark.parametrize(
    ("page", "holds", "expected"),
    [
        ("/healthz", {"alive": (True, "fine")}, ("HTTP/1.1 200 OK", b"fine\n")),
        (
            "/healthz",
            {"alive": (False, "inspect is stuck")},
            ("HTTP/1.1 503 Service Unavailable", b"inspect is stuck\n"),
        ),
        ("/readyz", {"ready": (True, "inspecting")}, ("HTTP/1.1 200 OK", b"inspecting\n")),
        ("/readyz", {"ready": (False, "wärmt auf")}, ("HTTP/1.1 503 Service Unavailable", "wärmt auf\n".encode())),
    ],
)
def test_a_condition_that_does_not_hold_is_a_503_with_the_reason(page, holds, expected):
    status, _, body = ask(f"GET {page} HTTP/1.1", **holds)
    assert (status, body) == expected


def test_the_process_may_live_while_it_is_not_ready():
    not_ready = (False, "warming up")
    assert ask("GET /healthz HTTP/1.1", ready=not_ready)[0] == "HTTP/1.1 200 OK"
    assert ask("GET /readyz HTTP/1.1", ready=not_ready)[0] == "HTTP/1.1 503 Service Unavailable"


@pytest.mark.parametrize("path", ["/", "/metrics/", "/../etc/passwd", "/METRICS", "http://station/metrics", "*"])
def test_anything_else_is_a_404_that_names_the_pages(path):
    status, _, body = ask(f"GET {path} HTTP/1.1")
    assert status == "HTTP/1.1 404 Not Found" and b"/metrics, /healthz or /readyz" in body


def test_head_is_answered_without_a_body_and_with_its_length():
    status, headers, body = ask("HEAD /metrics HTTP/1.1")
    assert status == "HTTP/1.1 200 OK" and headers["Content-Length"] == "13" and body == b""


@pytest.mark.parametrize("method", ["POST", "DELETE", "OPTIONS", "get"])
def test_other_methods_are_refused_and_told_which_are_not(method):
    status, headers, _ = ask(f"{method} /metrics HTTP/1.1")
    assert status == "HTTP/1.1 405 Method Not Allowed" and headers["Allow"] == "GET, HEAD"


@pytest.mark.parametrize(
    "line", ["", "GET", "GET /metrics", "GET /metrics SPDY/3", "GET / x HTTP/1.1", "\x16\x03\x01\xff"]
)
def test_what_is_no_request_is_a_400(line):
    assert ask(line)[0] == "HTTP/1.1 400 Bad Request"


def test_a_bug_behind_a_page_is_a_500_that_tells_nothing_of_it():
    status, _, body = ask("GET /metrics HTTP/1.1", metrics=Broken())
    assert status == "HTTP/1.1 500 Internal Server Error" and b"a bug" not in body
