"""What machine-vision cameras need of the kernel: long packets, large socket buffers, memory for USB."""

from __future__ import annotations

import socket
from ipaddress import IPv4Address
from pathlib import Path
from typing import Iterator, Sequence

from defectd.camera.discovery import GVCP_PORT, network_of
from defectd.camera_settings import AravisSettings
from defectd.doctor.patient import Patient
from defectd.doctor.report import Finding, error, ok, skipped, warning

_JUMBO = 8000
_BUFFER_KB = 8192
_USB_MB = 200  # for each camera: sixteen frames of 12 MP
_ENOUGH_USB_MB = 1000


def check_vision(patient: Patient) -> Iterator[Finding]:
    """For cameras of kind aravis only."""
    if patient.settings is None:
        return
    cameras = [camera for camera in patient.settings.camera if isinstance(camera, AravisSettings)]
    on_network = [camera for camera in cameras if camera.address is not None or camera.interface is not None]
    roots = patient.places.roots
    for camera in on_network:
        interface = camera.interface or interface_to(str(camera.address))
        if interface is None:
            yield skipped(f"MTU of {camera.name}", f"no interface reaches {camera.address}")
        else:
            mtu = _number(roots.sys / "class" / "net" / interface / "mtu")
            yield mtu_finding(camera.name, interface, mtu, camera.packet_size)
    if on_network:
        yield buffer_finding(_number(roots.proc / "sys" / "net" / "core" / "rmem_max"), on_network)
    if len(cameras) > len(on_network):
        usb_mb = _number(roots.sys / "module" / "usbcore" / "parameters" / "usbfs_memory_mb")
        yield usb_finding(usb_mb, len(cameras) - len(on_network))


def mtu_finding(camera: str, interface: str, mtu: int | None, packet_size: int | None) -> Finding:
    """Short packets cost a core at full speed. Pure."""
    subject = f"MTU of {camera}"
    if mtu is None:
        return skipped(subject, f"{interface}: the kernel does not tell its MTU")
    set_it = f"sudo ip link set {interface} mtu 9000, and for good in the connection's settings; switches must allow it"
    if packet_size is not None and packet_size > mtu:
        return error(subject, f"packet_size {packet_size} does not fit through {interface} (MTU {mtu}): nothing will "
                     "arrive", f"{set_it}; or packet_size = {mtu}", mtu=mtu)  # fmt: skip
    if mtu < _JUMBO:
        return warning(subject, f"{interface} has an MTU of {mtu}: six times as many packets and interrupts as with "
                       "9000", set_it, mtu=mtu)  # fmt: skip
    return ok(subject, f"{interface}, MTU {mtu}", mtu=mtu)


def buffer_finding(rmem_max: int | None, cameras: Sequence[AravisSettings]) -> Finding:
    """The kernel cuts a socket buffer to rmem_max and says nothing. Pure."""
    subject = "socket buffer"
    if rmem_max is None:
        return skipped(subject, "the kernel does not tell net.core.rmem_max")
    wanted = max((camera.socket_buffer_kb or _BUFFER_KB) * 1024 for camera in cameras)
    figures = {"rmem_max": rmem_max, "wanted": wanted}
    if rmem_max < wanted:
        return warning(
            subject, f"net.core.rmem_max is {rmem_max}, so that packets are lost when the CPU is busy for a moment",
            f"sudo sysctl -w net.core.rmem_max={wanted}, and that line in /etc/sysctl.d/60-defectd.conf", **figures,
        )  # fmt: skip
    return ok(subject, f"net.core.rmem_max is {rmem_max}", **figures)


def usb_finding(usb_mb: int | None, cameras: int) -> Finding:
    """The kernel's default of 16 MB holds no frame of a large camera. Pure."""
    subject = "USB memory"
    if usb_mb is None:
        return skipped(subject, "the kernel does not tell usbcore.usbfs_memory_mb")
    if 0 < usb_mb < min(_USB_MB * cameras, _ENOUGH_USB_MB):
        return warning(
            subject, f"usbfs_memory_mb is {usb_mb}, too little for {cameras} camera(s)",
            f"echo {_ENOUGH_USB_MB} | sudo tee /sys/module/usbcore/parameters/usbfs_memory_mb; for good: "
            f"usbcore.usbfs_memory_mb={_ENOUGH_USB_MB} on the APPEND line of /boot/extlinux/extlinux.conf",
            usbfs_memory_mb=usb_mb,
        )  # fmt: skip
    return ok(subject, f"usbfs_memory_mb is {usb_mb or 'unlimited'}", usbfs_memory_mb=usb_mb)


def interface_to(address: str) -> str | None:
    """The network interface through which packets to *address* go; nothing is sent."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as route:
        try:
            route.connect((address, GVCP_PORT))
        except OSError:
            return None
        own = route.getsockname()[0]
    networks = ((name, network_of(name)) for _, name in socket.if_nameindex())
    return next((name for name, network in networks if network is not None and IPv4Address(own) in network), None)


def _number(path: Path) -> int | None:
    try:
        return int(path.read_text())
    except (OSError, ValueError):
        return None
