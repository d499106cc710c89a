"""Listens to all packets of a network of one's own: the truth about what was sent."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
from collections import Counter

_ALL, _OUTGOING = 0x0003, 4  # <linux/if_ether.h>, <linux/if_packet.h>: on loopback each packet comes twice
_UDP = 17
_BUFFER_BYTES = 64 << 20
_SO_RCVBUFFORCE = 33
_GVCP_PORT = 3956


class Sniffer:
    """What went over *interface* since it was made. Needs root."""

    def __init__(self, interface: str = "lo") -> None:
        self.frames: Counter[int] = Counter()
        """GVSP frame number -> how many of its packets were sent."""
        self.discoveries: list[str] = []
        """Where questions for cameras went to."""
        self._socket = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(_ALL))
        self._socket.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, _BUFFER_BYTES)
        self._socket.bind((interface, _ALL))
        self._socket.settimeout(0.2)
        self._open = True
        self._thread = threading.Thread(target=self._listen, daemon=True)
        self._thread.start()

    @property
    def incomplete(self) -> set[int]:
        """Numbers of the frames of which fewer packets were sent than of others."""
        whole = max(self.frames.values(), default=0)
        return {number for number, packets in self.frames.items() if packets < whole}

    def close(self) -> None:
        """Ends it."""
        self._open = False
        self._thread.join()
        self._socket.close()

    def _listen(self) -> None:
        while self._open:
            with contextlib.suppress(socket.timeout):
                packet, address = self._socket.recvfrom(2048)
                if address[2] == _OUTGOING and len(packet) > 36 and packet[9] == _UDP:
                    self._note(packet)

    def _note(self, packet: bytes) -> None:
        header = 4 * (packet[0] & 0x0F)
        source, target = struct.unpack_from(">HH", packet, header)
        body = packet[header + 8 :]
        if target == _GVCP_PORT:
            if struct.unpack_from(">H", body, 2)[0] == 0x0002:
                self.discoveries.append(socket.inet_ntoa(packet[16:20]))
        elif source != _GVCP_PORT and len(body) >= 8 and not body[4] & 0x80:
            self.frames[struct.unpack_from(">H", body, 2)[0]] += 1

    def __enter__(self) -> Sniffer:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
