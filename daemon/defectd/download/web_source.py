"""Bundles on a web server. TLS with the pinned CA only; nothing that the answer says leads anywhere else.

No redirect is followed, no proxy is taken from the environment, no content is decoded. Every wait can be ended within
a quarter of a second, but for the resolver's: how long a name takes that nobody answers for is said in resolv.conf.
"""

from __future__ import annotations

import errno
import os
import re
import select
import socket
import ssl
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Iterator, NamedTuple

from urllib3 import HTTPSConnectionPool
from urllib3.connection import HTTPSConnection
from urllib3.exceptions import HTTPError, ReadTimeoutError
from urllib3.response import BaseHTTPResponse
from urllib3.util import parse_url

from defectd import __version__
from defectd.download.errors import DownloadError, MayPass, WrongBytes
from defectd.download.fetching import Opened, steps
from defectd.download.patience import POLL_S, Patience

CONNECT_S = READ_S = 10.0
_HEADERS = {"User-Agent": f"defectd/{__version__}", "Accept-Encoding": "identity"}
_STRONG_ETAG = re.compile(r'"[\x21\x23-\x7e]{1,200}"')
_CONTENT_RANGE = re.compile(r"bytes (\d{1,18})-\d{1,18}/(\d{1,18}|\*)")
_MAY_PASS = (408, 425, 429)  # and all of 5xx
_NO_TLS_FAULT = (ssl.SSLEOFError, ssl.SSLZeroReturnError, ssl.SSLSyscallError)  # the connection broke, no more


class WebSource:
    """The folder *url* of a server whose certificate the CA in the file *ca* signed."""

    def __init__(self, alias: str, url: str, ca: Path) -> None:
        self._alias, self._url, self._ca = alias, url.rstrip("/"), ca

    @contextmanager
    def session(self, patience: Patience) -> Iterator[_WebSession]:
        """As `Source.session`."""
        try:
            context = _Context(ssl.PROTOCOL_TLS_CLIENT)
            context.load_verify_locations(cafile=str(self._ca))
        except OSError as error:
            reason = "holds no certificate" if isinstance(error, ssl.SSLError) else error.strerror
            raise DownloadError(
                "tls", f"source {self._alias!r}: {self._ca}: {reason}; expected the CA of {self._url}, as PEM"
            ) from error
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.patience = patience
        place = parse_url(self._url)
        with _Pool(place.host or "", place.port or 443, maxsize=1, timeout=READ_S, ssl_context=context) as pool:
            yield _WebSession(pool, self._url, place.path or "")


class _WebSession:
    def __init__(self, pool: HTTPSConnectionPool, url: str, prefix: str) -> None:
        self._pool, self._url, self._prefix = pool, url, prefix

    def fetch(self, path: str, name: str, offset: int = 0, etag: str | None = None) -> Opened:
        """As `Session.fetch`."""
        below = "/".join(steps(path, name))
        where, headers = f"{self._url}/{below}", dict(_HEADERS)
        if offset:
            headers["Range"] = f"bytes={offset}-"
            if etag is not None:
                headers["If-Range"] = etag
        try:
            response = self._pool.urlopen(
                "GET", f"{self._prefix}/{below}", headers=headers, retries=False, redirect=False,
                preload_content=False, decode_content=False,
            )  # fmt: skip
        except (HTTPError, OSError) as error:
            raise _trouble(error, where, connected=False) from error
        body = _Body(response, where)
        try:
            answer = judge(response.status, response.headers, offset, where)
        except BaseException:
            body.close()
            raise
        return Opened(body, answer.total, answer.offset, answer.etag)


class Answer(NamedTuple):
    """As the fields of `Opened`."""

    offset: int
    total: int | None
    etag: str | None


def judge(status: int, headers: Any, asked_offset: int, where: str) -> Answer:
    """What the head of an answer promises of its body. Raises DownloadError, MayPass and WrongBytes."""
    if status == 416 and asked_offset:
        raise WrongBytes(f"{where}: ends before byte {asked_offset}")
    if status not in (200, 206):
        raise _refusal(status, headers, where)
    coding = headers.get("Content-Encoding", "identity")
    if coding.strip().lower() != "identity":
        raise DownloadError(
            "wrong_bytes",
            f"{where}: the server changes it on its way (Content-Encoding: {_shown(coding)}); "
            "switch compression off for bundles there",
        )
    found = headers.get("ETag", "")
    etag = found if _STRONG_ETAG.fullmatch(found) else None
    if status == 200:
        length = headers.get("Content-Length", "")
        return Answer(0, int(length) if re.fullmatch(r"[0-9]{1,18}", length) else None, etag)
    span = _CONTENT_RANGE.fullmatch(headers.get("Content-Range", ""))
    if span is None or int(span.group(1)) != asked_offset:
        raise DownloadError(
            "wrong_bytes",
            f"{where}: asked for all from byte {asked_offset} on, the server answers "
            f"{_shown(headers.get('Content-Range', 'without a range'))}; look at that server, or at what is between",
        )
    return Answer(asked_offset, None if span.group(2) == "*" else int(span.group(2)), etag)


def _refusal(status: int, headers: Any, where: str) -> Exception:
    if status in _MAY_PASS or 500 <= status <= 599:
        return MayPass("unreachable", f"{where}: the server answers {status}")
    if 300 <= status <= 399:
        target = _shown(headers.get("Location", "nowhere"))
        return DownloadError(
            "redirect",
            f"{where}: the server redirects ({status}) to {target}, which is never followed; "
            "configure the address itself under rollout.source, or bring the bundle to this one",
        )
    if status in (404, 410):
        return DownloadError(
            "not_found", f"{where}: there is no such file ({status}); check the command's path, or put the bundle there"
        )
    return DownloadError(
        "refused", f"{where}: the server refuses it ({status}); let this station read it without a password there"
    )


class _Body:
    """A `Stream` of an answer."""

    def __init__(self, response: BaseHTTPResponse, where: str) -> None:
        self._response, self._where = response, where

    def read(self, limit_bytes: int) -> bytes:
        try:
            return self._response.read1(limit_bytes) or b""
        except (HTTPError, OSError) as error:
            raise _trouble(error, self._where, connected=True) from error

    def close(self) -> None:
        with suppress(HTTPError, OSError):
            self._response.close()


class _Socket(ssl.SSLSocket):
    """One that waits with the patience of its context. OpenSSL goes on where a time-out interrupted it."""

    def do_handshake(self, block: bool = False) -> None:
        self.settimeout(POLL_S)
        try:
            self._patience().until(lambda: super(_Socket, self).do_handshake(block), CONNECT_S)
        except BaseException:
            self.close()  # SSLSocket does so after an OSError only, and nobody else has it yet
            raise

    def recv_into(self, buffer: Any, nbytes: int | None = None, flags: int = 0) -> int:
        self.settimeout(POLL_S)
        return self._patience().receive(lambda: super(_Socket, self).recv_into(buffer, nbytes, flags), READ_S)

    def _patience(self) -> Patience:
        context = self.context
        assert isinstance(context, _Context)
        return context.patience


class _Context(ssl.SSLContext):
    """Names and certificates are checked, as PROTOCOL_TLS_CLIENT does, and with the CAs that are loaded only."""

    sslsocket_class = _Socket
    patience: Patience


class _Connection(HTTPSConnection):
    def _new_conn(self) -> socket.socket:
        assert isinstance(self.ssl_context, _Context)
        return _connected(self.host, self.port or 443, self.ssl_context.patience)


class _Pool(HTTPSConnectionPool):
    ConnectionCls = _Connection


def _connected(host: str, port: int, patience: Patience) -> socket.socket:
    """Raises OSError, that of the last address if there are several."""
    trouble: OSError = OSError(errno.EADDRNOTAVAIL, "has no address")
    for family, kind, protocol, _, address in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM):
        one = socket.socket(family, kind, protocol)
        try:
            _connect(one, address, patience)
        except OSError as error:
            one.close()
            trouble = error
        except BaseException:
            one.close()
            raise
        else:
            return one
    raise trouble


def _connect(one: socket.socket, address: Any, patience: Patience) -> None:
    one.setblocking(False)
    code = one.connect_ex(address)
    if code == errno.EINPROGRESS:
        poll = select.poll()
        poll.register(one, select.POLLOUT)

        def answered() -> int:
            if not poll.poll(round(POLL_S * 1000)):
                raise socket.timeout(f"no answer within {CONNECT_S:.0f} s")
            return one.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)

        code = patience.until(answered, CONNECT_S)
    if code:
        raise OSError(code, os.strerror(code))
    one.settimeout(POLL_S)


def _trouble(error: Exception, where: str, *, connected: bool) -> DownloadError | MayPass:
    causes = list(_causes(error))
    tls = next((one for one in causes if isinstance(one, ssl.SSLError) and not isinstance(one, _NO_TLS_FAULT)), None)
    if tls is not None and not connected:
        return DownloadError("tls", f"{where}: {_tls_words(tls)}")
    if any(isinstance(one, (ReadTimeoutError, socket.timeout)) for one in causes):
        return (
            MayPass("stalled", f"{where}: nothing comes")
            if connected
            else MayPass("unreachable", f"{where}: no answer")
        )
    reason = next((one.strerror for one in causes if isinstance(one, OSError) and one.strerror), "the connection broke")
    return MayPass("unreachable", f"{where}: {reason}")


def _tls_words(error: ssl.SSLError) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        return (
            f"the server's certificate is not accepted ({error.verify_message}); check rollout.source.ca, that the "
            "certificate names this server, and this station's clock"
        )
    return f"no TLS with that server ({error.reason or error}); check that it speaks HTTPS at this port"


def _causes(error: BaseException) -> Iterator[BaseException]:
    """*error*, and what was wrapped in it: urllib3 keeps it in `args`, or chained."""
    waiting, seen = [error], 0
    while waiting and seen < 20:
        one = waiting.pop(0)
        seen += 1
        yield one
        waiting += [arg for arg in one.args if isinstance(arg, BaseException)]
        waiting += [chained for chained in (one.__cause__, one.__context__) if chained is not None]


def _shown(text: str) -> str:
    """What a stranger wrote, for a terminal."""
    return repr(text[:200])
