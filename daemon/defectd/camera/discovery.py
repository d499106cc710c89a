"""Which GigE Vision cameras answer on one network interface.

Aravis asks on all interfaces at once. A station's other networks are not ours to broadcast on, so we ask ourselves: one
datagram of the GigE Vision control protocol (GVCP), on the interface that was named.
"""

from __future__ import annotations

import fcntl
import socket
import struct
import time
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network

from defectd.errors import CameraError, CameraLost

GVCP_PORT = 3956
_REQUEST = struct.pack(">BBHHH", 0x42, 0x11, 0x0002, 0, 0xFFFF)  # DISCOVERY_CMD; answer me, by broadcast if need be
_ANSWER = struct.Struct(">HHHH")  # status, DISCOVERY_ACK, length, id
_ACK = 0x0003
_LEAST_BYTES = 0xF8
_BROADCAST = "255.255.255.255"
_ADDRESS_AND_MASK = (0x8915, 0x891B)  # SIOCGIFADDR, SIOCGIFNETMASK of <linux/sockios.h>


@dataclass(frozen=True)
class Announcement:
    """What a camera says about itself. *mac* as aa:bb:cc:dd:ee:ff."""

    address: str
    netmask: str
    mac: str
    vendor: str
    model: str
    serial: str
    user_name: str


def discover(interface: str, within_s: float = 1.0) -> list[Announcement]:
    """Cameras that answer on *interface* within *within_s*, by address. Raises CameraError if it is no interface of
    this machine, or this user may not ask there; CameraLost if it is down."""
    found: dict[str, Announcement] = {}
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
        asking.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
        try:
            asking.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, interface.encode() + b"\0")
        except PermissionError as error:
            raise CameraError(f"{interface}: {error.strerror}; expected root, or Linux 5.7 and newer") from error
        except OSError as error:
            here = ", ".join(name for _, name in socket.if_nameindex())
            raise CameraError(f"{interface}: {error.strerror}; expected one of {here}") from error
        try:
            asking.sendto(_REQUEST, (_BROADCAST, GVCP_PORT))
        except OSError as error:
            raise CameraLost(f"{interface}: {error.strerror}; is it up, and has it an address?") from error
        due_s = time.monotonic() + within_s
        while (remaining_s := due_s - time.monotonic()) > 0:
            asking.settimeout(remaining_s)
            try:
                camera = parse(asking.recv(2048))
            except socket.timeout:
                break
            if camera is not None:
                found[camera.mac] = camera
    return sorted(found.values(), key=lambda camera: socket.inet_aton(camera.address))


def find(interface: str, serial: str | None, user_name: str | None) -> str:
    """The address of the camera with that serial number or user name. Raises CameraLost if it does not answer, and
    CameraError if several do, or it stands outside the interface's network."""
    wanted = f"serial {serial}" if serial is not None else f"user_name {user_name}"
    cameras = discover(interface)
    fitting = [
        each for each in cameras if (each.serial == serial if serial is not None else each.user_name == user_name)
    ]
    if not fitting:
        here = ", ".join(f"{each.serial} ({each.address})" for each in cameras) or "nobody"
        raise CameraLost(f"no camera with {wanted} answers on {interface}; {here} does")
    network = network_of(interface)
    if len(fitting) == 1 and network is not None and IPv4Address(fitting[0].address) not in network:
        raise CameraError(
            f"the camera with {wanted} has the address {fitting[0].address}, which {interface} "
            f"({network}) cannot reach; expected one of its network: arv-tool-0.8 network sets it"
        )
    if len(fitting) > 1:
        both = ", ".join(each.address for each in fitting)
        raise CameraError(f"several cameras on {interface} have {wanted}: {both}; expected one, name its address")
    return fitting[0].address


def network_of(interface: str) -> IPv4Network | None:
    """The network that *interface* has its address in; None if it has none."""
    name = struct.pack("256s", interface.encode()[:15])
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
        try:
            address, mask = (socket.inet_ntoa(fcntl.ioctl(asking, each, name)[20:24]) for each in _ADDRESS_AND_MASK)
        except OSError:
            return None
    return IPv4Network(f"{address}/{mask}", strict=False)


def parse(datagram: bytes) -> Announcement | None:
    """The answer to a discovery, by GigE Vision 2.0 §14.1.3; None if it is something else. Pure."""
    if len(datagram) < _ANSWER.size + _LEAST_BYTES:
        return None
    status, kind, _, _ = _ANSWER.unpack_from(datagram)
    if status != 0 or kind != _ACK:
        return None
    body = datagram[_ANSWER.size :]
    return Announcement(
        address=socket.inet_ntoa(body[0x24:0x28]),
        netmask=socket.inet_ntoa(body[0x34:0x38]),
        mac=":".join(f"{byte:02x}" for byte in body[0x0A:0x10]),
        vendor=_text(body[0x48:0x68]),
        model=_text(body[0x68:0x88]),
        serial=_text(body[0xD8:0xE8]),
        user_name=_text(body[0xE8:0xF8]),
    )


def _text(field: bytes) -> str:
    """Up to its zero; what cannot be shown as a backslash sequence."""
    text = field.split(b"\0", 1)[0].decode("utf-8", errors="backslashreplace")
    return "".join(each if each.isprintable() else f"\\x{ord(each):02x}" for each in text)
