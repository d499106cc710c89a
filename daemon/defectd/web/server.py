"""A web server of three pages, for Prometheus and for whoever watches over the service. One thread, no secrets.

A connection asks once, has a few seconds for all of it, and the oldest gives way when there are too many: clients
that are stuck, slow or hostile cannot keep another one out.
"""

from __future__ import annotations

import errno
import logging
import selectors
import socket
import threading
from collections import OrderedDict
from contextlib import suppress
from http import HTTPStatus
from typing import Callable, Protocol, Tuple

from defectd.clock import NS_PER_S, monotonic_ns
from defectd.errors import StartupError

log = logging.getLogger(__name__)

Check = Callable[[], Tuple[bool, str]]
"""Whether it is so, and the same in words. Called on the server's thread; must not block."""

MAX_CONNECTIONS = 8
MAX_HEAD_BYTES = 8192
_BACKLOG = 128  # where it is full, the kernel lets a client wait for a second
_CONNECTION_S = 5.0
_AFTER_A_FAILURE_S = 0.5
_STOP_S = 2.0
_TRY_EVERY_S = 10.0
_RECEIVE_BYTES = 65_536
_TEXT = "text/plain; charset=utf-8"
_METRICS = "text/plain; version=0.0.4; charset=utf-8"


class Page(Protocol):
    """Where /metrics comes from."""

    def exposition(self) -> bytes: ...


class WebServer:
    """/metrics; /healthz: 200 while *alive*, so no restart is needed; /readyz: 200 while *ready*, so units are
    inspected; else 503, with the reason. Plain HTTP, for this machine alone unless *host* says otherwise."""

    def __init__(self, host: str, port: int, metrics: Page, ready: Check, alive: Check) -> None:
        """Opens nothing yet. Port 0 takes a free one."""
        self._host, self.port = host, port
        self._pages = Pages(metrics, ready, alive)
        self._stopping = threading.Event()
        self._waker, self._wake = socket.socketpair()
        self._thread = threading.Thread(target=self._run, name="web", daemon=True)
        self._listener: socket.socket | None = None
        self._connections: OrderedDict[socket.socket, _Connection] = OrderedDict()
        self._short = False

    def start(self) -> None:
        """Listen. Raises StartupError if the address cannot be had; then `start_later` may be called."""
        self._listen()
        self._thread.start()

    def start_later(self, listens: Callable[[], None], every_s: float = _TRY_EVERY_S) -> None:
        """Try again now and then, without keeping anybody waiting; *listens* is called, on a thread of the server's,
        as soon as the address could be had."""
        self._thread = threading.Thread(target=self._run_later, args=(listens, every_s), name="web", daemon=True)
        self._thread.start()

    def _listen(self) -> None:
        try:
            family = socket.getaddrinfo(self._host, self.port, type=socket.SOCK_STREAM)[0][0]
            listener = socket.create_server((self._host, self.port), family=family, backlog=_BACKLOG)
        except (OSError, UnicodeError) as error:
            raise StartupError(_why_not(error, self._host, self.port)) from error
        listener.setblocking(False)
        self.port = listener.getsockname()[1]
        self._listener = listener
        log.info("metrics: http://%s:%d/metrics", f"[{self._host}]" if ":" in self._host else self._host, self.port)

    def stop(self) -> None:
        """Close everything; what is being sent is cut off. Also without `start`."""
        self._stopping.set()
        with suppress(OSError):
            self._waker.send(b"x")
        if self._thread.ident is not None:
            self._thread.join(_STOP_S)
        if self._thread.is_alive():
            log.warning("the web server's thread is stuck; it ends with the process")
            return
        self._waker.close()
        self._wake.close()

    def _run_later(self, listens: Callable[[], None], every_s: float) -> None:
        while not self._stopping.wait(every_s):
            try:
                self._listen()
            except StartupError as error:
                log.debug("still no port: %s", error)
            else:
                listens()
                self._run()
                return

    def _run(self) -> None:
        assert self._listener is not None
        with selectors.DefaultSelector() as selector, self._listener:
            selector.register(self._wake, selectors.EVENT_READ)
            selector.register(self._listener, selectors.EVENT_READ)
            while not self._stopping.is_set():
                try:
                    self._turn(selector, self._listener)
                except Exception:  # the thread's outermost guard
                    log.exception("the web server stumbled")
                    self._stopping.wait(_AFTER_A_FAILURE_S)
            for client in self._connections:
                client.close()

    def _turn(self, selector: selectors.BaseSelector, listener: socket.socket) -> None:
        now_ns = monotonic_ns()
        for connection in [each for each in self._connections.values() if each.over_ns <= now_ns]:
            self._hang_up(selector, connection)
        oldest = next(iter(self._connections.values()), None)
        wait_s = None if oldest is None else (oldest.over_ns - now_ns) / NS_PER_S
        for key, _ in selector.select(wait_s):
            if key.fileobj is listener:
                self._accept(selector, listener)
            elif isinstance(key.data, _Connection) and key.data.client in self._connections:
                self._attend(selector, key.data)

    def _accept(self, selector: selectors.BaseSelector, listener: socket.socket) -> None:
        try:
            client, _ = listener.accept()
        except (BlockingIOError, ConnectionError):
            return  # it has gone already
        except OSError as error:  # no more descriptors or memory: it waits in the backlog
            if not self._short:
                log.warning("no connection can be taken: %s", error)
            self._short = True
            self._stopping.wait(_AFTER_A_FAILURE_S)
            return
        self._short = False
        if len(self._connections) >= MAX_CONNECTIONS:
            self._hang_up(selector, next(iter(self._connections.values())))
        client.setblocking(False)
        connection = _Connection(client, monotonic_ns() + int(_CONNECTION_S * NS_PER_S))
        self._connections[client] = connection
        selector.register(client, selectors.EVENT_READ, connection)

    def _attend(self, selector: selectors.BaseSelector, connection: _Connection) -> None:
        """One step of one connection; whatever goes wrong ends that one alone."""
        try:
            more = connection.step(self._pages)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            more = False  # the client hung up
        except Exception:
            log.exception("a request could not be answered")
            more = False
        if more:
            selector.modify(connection.client, connection.waits_for, connection)
        else:
            self._hang_up(selector, connection)

    def _hang_up(self, selector: selectors.BaseSelector, connection: _Connection) -> None:
        del self._connections[connection.client]
        selector.unregister(connection.client)
        connection.client.close()


class _Connection:
    """One question and its answer: read the head, write the answer, then wait for the client to close."""

    def __init__(self, client: socket.socket, over_ns: int) -> None:
        self.client, self.over_ns = client, over_ns
        self.waits_for = selectors.EVENT_READ
        self._head = b""
        self._answer: memoryview | None = None

    def step(self, pages: Pages) -> bool:
        """Do what can be done now; False when it is over. Raises OSError."""
        if self._answer is None:
            self._read(pages)
        elif self._answer:
            self._answer = self._answer[self.client.send(self._answer) :]
            if not self._answer:
                # What a client still says is read, for closing with unread bytes would take the answer from it.
                self.client.shutdown(socket.SHUT_WR)
                self.waits_for = selectors.EVENT_READ
        else:
            return bool(self.client.recv(_RECEIVE_BYTES))
        return True

    def _read(self, pages: Pages) -> None:
        chunk = self.client.recv(MAX_HEAD_BYTES + 1 - len(self._head))
        if not chunk:
            raise ConnectionResetError
        self._head += chunk
        if b"\r\n\r\n" in self._head or b"\n\n" in self._head:
            self._answer = memoryview(pages.answer(self._head))
        elif len(self._head) > MAX_HEAD_BYTES:
            self._answer = memoryview(_response(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE))
        else:
            return
        self.waits_for = selectors.EVENT_WRITE


class Pages:
    """From the head of a request to the bytes of the response."""

    def __init__(self, metrics: Page, ready: Check, alive: Check) -> None:
        self._metrics = metrics
        self._conditions = {"/healthz": alive, "/readyz": ready}

    def answer(self, head: bytes) -> bytes:
        """The whole response; an error of what it asks becomes a 500."""
        words = head.split(b"\n", 1)[0].decode("latin-1").split()
        if len(words) != 3 or not words[2].startswith("HTTP/1."):
            return _response(HTTPStatus.BAD_REQUEST)
        method, path = words[0], words[1].partition("?")[0]
        if path != "/metrics" and path not in self._conditions:
            response = _response(HTTPStatus.NOT_FOUND, b"expected /metrics, /healthz or /readyz\n")
        elif method not in ("GET", "HEAD"):
            return _response(HTTPStatus.METHOD_NOT_ALLOWED, allow="GET, HEAD")
        else:
            response = self._page(path)
        return response.partition(b"\r\n\r\n")[0] + b"\r\n\r\n" if method == "HEAD" else response

    def _page(self, path: str) -> bytes:
        try:
            if path == "/metrics":
                return _response(HTTPStatus.OK, self._metrics.exposition(), _METRICS)
            holds, words = self._conditions[path]()
        except Exception:
            log.exception("%s cannot be told", path)
            return _response(HTTPStatus.INTERNAL_SERVER_ERROR)
        status = HTTPStatus.OK if holds else HTTPStatus.SERVICE_UNAVAILABLE
        return _response(status, f"{words}\n".encode("utf-8", "replace"))


def _response(status: HTTPStatus, body: bytes | None = None, content_type: str = _TEXT, *, allow: str = "") -> bytes:
    body = f"{status.phrase}\n".encode() if body is None else body
    lines = [
        f"HTTP/1.1 {status.value} {status.phrase}",
        f"Content-Type: {content_type}",
        f"Content-Length: {len(body)}",
        "Cache-Control: no-store",
        "Connection: close",
    ]
    if allow:
        lines.append(f"Allow: {allow}")
    return "\r\n".join([*lines, "", ""]).encode() + body


def _why_not(error: OSError | UnicodeError, host: str, port: int) -> str:
    code = getattr(error, "errno", None)
    if code == errno.EADDRINUSE:
        return f"web.port: {port} is in use on {host}; set another [web] port, or stop the program that listens there"
    if code == errno.EACCES:
        return f"web.port: {port} needs root; expected [web] port from 1024 on"
    return (
        f"web.host: {host!r} cannot be listened on: {error}; "
        "expected an address of this machine in [web] host, such as 127.0.0.1"
    )
