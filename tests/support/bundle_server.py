"""A web server with TLS that misbehaves as it is told, one behaviour per request, and certificates for it."""

from __future__ import annotations

import gzip
import hashlib
import socket
import ssl
import subprocess
import threading
import time
from collections import deque
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Callable, NamedTuple

Behaviour = Callable[["Request", bytes], None]
"""Answers a request for a file with these contents."""


class Asked(NamedTuple):
    """What came: the file, and the headers that matter here."""

    name: str
    range: str | None
    if_range: str | None
    encoding: str | None
    connection: int


class Request(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: BundleServer

    def do_GET(self) -> None:
        name = self.path.rpartition("/")[2]
        headers = self.headers
        asked = Asked(
            name, headers["Range"], headers["If-Range"], headers["Accept-Encoding"], self.client_address[1]
        )  # fmt: skip
        self.server.asked.append(asked)
        behaviours = self.server.behaviours.get(name)
        data = self.server.files.get(self.path)
        behave = behaviours.popleft() if behaviours else honest
        if data is None:
            behave = status(404)
        with suppress(OSError):  # the client hung up
            behave(self, data or b"")

    def head(self, code: int, length: int | None, **headers: str) -> None:
        self.send_response(code)
        if length is None:
            self.close_connection = True
            self.send_header("Connection", "close")
        else:
            self.send_header("Content-Length", str(length))
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.flush()

    def begin(self, data: bytes, *, length: int | None = None) -> bytes:
        """The head of a proper answer; what is to come after it."""
        etag, wanted = etag_of(data), self.headers["Range"]
        if wanted is None or self.headers["If-Range"] not in (None, etag):
            self.head(200, len(data) if length is None else length, ETag=etag)
            return data
        begin = int(wanted[len("bytes=") : -1])
        if begin >= len(data):
            self.head(416, 0, Content_Range=f"bytes */{len(data)}")
            return b""
        self.head(206, len(data) - begin, ETag=etag, Content_Range=f"bytes {begin}-{len(data) - 1}/{len(data)}")
        return data[begin:]

    def hang_up(self) -> None:
        self.close_connection = True
        self.wfile.flush()
        with suppress(OSError):
            self.connection.shutdown(socket.SHUT_RDWR)

    def wait(self, seconds: float) -> None:
        self.server.closing.wait(seconds)

    def log_message(self, *arguments: Any) -> None:
        pass


def etag_of(data: bytes) -> str:
    return f'"{hashlib.sha256(data).hexdigest()[:16]}"'


# -- behaviours


def honest(request: Request, data: bytes) -> None:
    request.wfile.write(request.begin(data))


def status(code: int, **headers: str) -> Behaviour:
    return lambda request, data: request.head(code, 0, **headers)


def closes_after(count: int) -> Behaviour:
    """Says how much there is, and hangs up."""

    def behave(request: Request, data: bytes) -> None:
        request.wfile.write(request.begin(data)[:count])
        request.hang_up()

    return behave


def stalls_after(count: int) -> Behaviour:
    """Sends so much, and then nothing, with the connection open."""

    def behave(request: Request, data: bytes) -> None:
        request.wfile.write(request.begin(data)[:count])
        request.wfile.flush()
        request.wait(60)
        request.hang_up()

    return behave


def never_answers(request: Request, data: bytes) -> None:
    request.wait(60)
    request.hang_up()


def drips(count: int, every_s: float) -> Behaviour:
    """So many bytes, then a pause, for ever."""

    def behave(request: Request, data: bytes) -> None:
        rest = request.begin(data)
        while rest and not request.server.closing.is_set():
            request.wfile.write(rest[:count])
            request.wfile.flush()
            rest = rest[count:]
            request.wait(every_s)

    return behave


def sends(other: bytes) -> Behaviour:
    """Other contents, as if they were the file's."""
    return lambda request, data: request.wfile.write(request.begin(other))


def flips(position: int) -> Behaviour:
    """One byte is another."""

    def behave(request: Request, data: bytes) -> None:
        changed = bytearray(data)
        changed[position] ^= 1
        request.head(200, len(data), ETag=etag_of(data))
        request.wfile.write(bytes(changed))

    return behave


def claims(length: int) -> Behaviour:
    """Another length than it sends."""

    def behave(request: Request, data: bytes) -> None:
        request.head(200, length, ETag=etag_of(data))
        request.wfile.write(data[:length])
        request.hang_up()

    return behave


def says_no_length(request: Request, data: bytes) -> None:
    request.head(200, None)
    request.wfile.write(data)


def endless(request: Request, data: bytes) -> None:
    """Without a length, until the client has had enough."""
    request.head(200, None)
    while not request.server.closing.is_set():
        request.wfile.write(data * (100_000 // len(data) + 1))


def whole_to_a_range(request: Request, data: bytes) -> None:
    request.head(200, len(data), ETag=etag_of(data))
    request.wfile.write(data)


def ignores_if_range(etag: str) -> Behaviour:
    """206 with another ETag than was asked for."""

    def behave(request: Request, data: bytes) -> None:
        begin = int(request.headers["Range"][len("bytes=") : -1])
        span = f"bytes {begin}-{len(data) - 1}/{len(data)}"
        request.head(206, len(data) - begin, ETag=etag, Content_Range=span)
        request.wfile.write(data[begin:])

    return behave


def another_range(request: Request, data: bytes) -> None:
    request.head(206, len(data), ETag=etag_of(data), Content_Range=f"bytes 0-{len(data) - 1}/{len(data)}")
    request.wfile.write(data)


def gzips(request: Request, data: bytes) -> None:
    packed = gzip.compress(data)
    request.head(200, len(packed), ETag=etag_of(data), Content_Encoding="gzip")
    request.wfile.write(packed)


def no_etag_and_closes_after(count: int) -> Behaviour:
    def behave(request: Request, data: bytes) -> None:
        request.head(200, len(data))
        request.wfile.write(data[:count])
        request.hang_up()

    return behave


# -- the server


class BundleServer(ThreadingHTTPServer):
    """`https://localhost:PORT/`. *asked* is what came so far."""

    daemon_threads = True

    def __init__(self, certificate: Path) -> None:
        """*certificate* is `NAME.crt`, and `NAME.key` beside it."""
        super().__init__(("127.0.0.1", 0), Request)
        self._tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._tls.load_cert_chain(certificate, certificate.with_suffix(".key"))
        self.files: dict[str, bytes] = {}
        self.behaviours: dict[str, deque[Behaviour]] = {}
        self.asked: list[Asked] = []
        self.closing = threading.Event()
        self._thread = threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.02})

    @property
    def url(self) -> str:
        return f"https://localhost:{self.server_port}"

    def offer(self, directory: Path, path: str) -> None:
        """The files of *directory* as `/path/…`."""
        self.files.update({f"/{path}/{file.name}": file.read_bytes() for file in directory.iterdir()})

    def script(self, name: str, *behaviours: Behaviour) -> None:
        """For the next requests for *name*; after these it is honest."""
        self.behaviours[name] = deque(behaviours)

    def names(self) -> list[str]:
        return [asked.name for asked in self.asked]

    def finish_request(self, request: Any, client_address: Any) -> None:
        """In a thread of its own: the handshake, too."""
        request.settimeout(5)
        try:
            wrapped = self._tls.wrap_socket(request, server_side=True)
        except (OSError, ssl.SSLError):
            return
        wrapped.settimeout(70)
        with wrapped:
            super().finish_request(wrapped, client_address)  # type: ignore[arg-type]

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that hangs up is no news here."""

    def __enter__(self) -> BundleServer:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.closing.set()
        self.shutdown()
        self._thread.join()
        self.server_close()


class Deaf:
    """Listens, and never says a word: not even the handshake's. With *full*, it does not even take a connection."""

    def __init__(self, *, full: bool = False) -> None:
        self._listener = socket.socket()
        self._listener.bind(("127.0.0.1", 0))
        self._listener.listen(0 if full else 5)
        self.url = f"https://localhost:{self._listener.getsockname()[1]}"
        self._waiting: list[socket.socket] = []
        if full:
            for _ in range(3):
                one = socket.socket()
                one.setblocking(False)
                one.connect_ex(self._listener.getsockname())
                self._waiting.append(one)
            time.sleep(0.05)

    def __enter__(self) -> Deaf:
        return self

    def __exit__(self, *_: object) -> None:
        for one in (*self._waiting, self._listener):
            one.close()


def make_certificates(directory: Path) -> None:
    """`ca.crt`, `other-ca.crt`; of the first, `server.crt` for localhost, `address.crt` for 127.0.0.1 and
    `elsewhere.crt` for another name."""

    def openssl(*arguments: str) -> None:
        subprocess.run(["openssl", *arguments], cwd=directory, check=True, capture_output=True)

    key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    for name in ("ca", "other-ca"):
        openssl("req", "-x509", *key, "-keyout", f"{name}.key", "-out", f"{name}.crt", "-days", "2",
                "-subj", f"/CN={name}", "-addext", "keyUsage=critical,keyCertSign,cRLSign")  # fmt: skip
    for name, names in (
        ("server", "DNS:localhost"),
        ("address", "IP:127.0.0.1"),
        ("elsewhere", "DNS:elsewhere.example"),
    ):
        openssl("req", *key, "-keyout", f"{name}.key", "-out", f"{name}.csr", "-subj", f"/CN={name}")
        (directory / f"{name}.ext").write_text(
            f"subjectAltName={names}\nauthorityKeyIdentifier=keyid\nkeyUsage=digitalSignature\n"
        )
        openssl("x509", "-req", "-in", f"{name}.csr", "-CA", "ca.crt", "-CAkey", "ca.key", "-CAcreateserial",
                "-days", "2", "-out", f"{name}.crt", "-extfile", f"{name}.ext")  # fmt: skip
