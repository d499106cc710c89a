"""`defectd cameras`: which machine-vision cameras answer, and what to write into the TOML."""

from __future__ import annotations

import argparse
import json
from typing import Any

Commands = Any  # argparse's type for it is private


def add_to(commands: Commands) -> None:
    """Register the command."""
    about = (
        "List GigE Vision cameras that answer on one network interface, or USB3 Vision cameras. It broadcasts one "
        "question on that interface, and on no other."
    )
    cameras = commands.add_parser("cameras", help="which machine-vision cameras answer", description=about)
    where = cameras.add_mutually_exclusive_group(required=True)
    where.add_argument("--interface", metavar="NAME", help="network interface to ask on, such as eth1")
    where.add_argument("--usb", action="store_true", help="cameras on USB (needs Aravis)")
    cameras.add_argument("--seconds", type=float, default=1.0, metavar="S", help="wait so long (default: 1)")
    cameras.add_argument("--json", action="store_true", help="one JSON array instead of lines")
    cameras.set_defaults(command=_cameras)


def _cameras(options: argparse.Namespace) -> int:
    found = _on_usb() if options.usb else _on_network(options.interface, options.seconds)
    if options.json:
        print(json.dumps(found, indent=2))
        return 0
    if not found:
        print("no camera on USB" if options.usb else f"no camera answers on {options.interface}")
    for camera in found:
        named = f", user_name {camera['user_name']!r}" if camera.get("user_name") else ""
        where = camera.get("address", "USB")
        print(f"{where:<15}  {camera['vendor']} {camera['model']}, serial {camera['serial']!r}{named}")
        if camera.get("problem"):
            print(f"{'':<15}  {camera['problem']}")
    return 0


def _on_network(interface: str, seconds: float) -> list[dict[str, Any]]:
    from dataclasses import asdict
    from ipaddress import IPv4Address

    from defectd.camera.discovery import discover, network_of

    cameras = [asdict(each) for each in discover(interface, seconds)]
    network = network_of(interface)
    for camera in cameras:
        if network is not None and IPv4Address(camera["address"]) not in network:
            camera["problem"] = f"cannot be opened: {interface} is in {network}; arv-tool-0.8 network sets its address"
    return cameras


def _on_usb() -> list[dict[str, Any]]:
    from defectd.camera.genicam import usb_cameras

    return [{"vendor": vendor, "model": model, "serial": serial} for vendor, model, serial in usb_cameras()]
