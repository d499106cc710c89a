"""A socketpair of records, seen from either end."""

from __future__ import annotations

import contextlib
import select
import socket

from defectd.workers.protocol import MAX_RECORD_BYTES, ProtocolError, Record, unpack

_BUFFER_BYTES = 1024 * 1024


class ChannelClosed(Exception):
    """The other process is gone."""


class Channel:
    """One end of a SOCK_SEQPACKET pair: keeps record boundaries, and reports the other end's death as closed."""

    def __init__(self, connection: socket.socket) -> None:
        self._socket = connection
        connection.setblocking(False)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _BUFFER_BYTES)

    @classmethod
    def pair(cls) -> tuple[Channel, socket.socket]:
        """The daemon's end, and the socket to hand to the child."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        return cls(ours), theirs

    def fileno(self) -> int:
        """For select."""
        return self._socket.fileno()

    def send(self, record: Record) -> None:
        """Send at once. Raises ChannelClosed if the other side is gone or has stopped reading for so long that the
        socket is full: both mean that it must be replaced."""
        data = record.pack()
        if len(data) > MAX_RECORD_BYTES:
            raise ProtocolError(f"a record of {len(data)} bytes is over the limit of {MAX_RECORD_BYTES}")
        try:
            self._socket.send(data)
        except OSError as error:
            raise ChannelClosed(str(error)) from error

    def receive(self, timeout_s: float) -> Record | None:
        """The next record, or None after *timeout_s*. Raises ChannelClosed, ProtocolError."""
        data = self._read()
        if data is None:
            readable, _, _ = select.select([self._socket], [], [], timeout_s)
            data = self._read() if readable else None
        return None if data is None else unpack(data)

    def _read(self) -> bytes | None:
        try:
            data = self._receive()
        except BlockingIOError:
            return None
        except OSError as error:
            raise ChannelClosed(str(error)) from error
        if not data:
            raise ChannelClosed("end of file")
        return data

    def _receive(self) -> bytes:
        """A peer that died with our records unread resets the connection, once; what it had said follows after that."""
        try:
            return self._socket.recv(MAX_RECORD_BYTES)
        except ConnectionResetError:
            return self._socket.recv(MAX_RECORD_BYTES)

    def finish(self) -> None:
        """Say no more: the other side reads end of file. What it says can still be read."""
        with contextlib.suppress(OSError):  # it has gone already
            self._socket.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        """Close our end; the other side reads end of file."""
        self._socket.close()
