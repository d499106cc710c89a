#!/usr/bin/env python3
"""The drop-in of defectd.service for the board on which this runs: its devices, their groups, what its systemd knows.

    python3 board_devices.py >/etc/systemd/system/defectd.service.d/board.conf

Needs nothing but Python 3.8. The same board and the same options give the same bytes. What a person should know goes to
stderr; the exit code is 2 for an option that cannot be right.
"""

from __future__ import annotations

import argparse
import grp
import ipaddress
import os
import re
import stat
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Mapping, Sequence

# A GPU and its memory (Tegra of both kernels, PC), a decoder, a camera. No globs deeper than the drivers make them.
NODES = (
    "nvmap", "nvhost-*", "nvgpu/*/*", "nvidia*", "nvidia-caps/*", "nvsciipc", "host1x-fence", "dma_heap/*",
    "dri/card*", "dri/renderD*", "video*", "media*", "v4l-subdev*",
)  # fmt: skip
SHARED_MAJORS = frozenset({"mem", "misc", "tty", "input", "vcs"})  # a whole group of these would be far too much
GROUPS = ("video", "render")  # of cameras and GPUs that are plugged in later
USB3_VISION = ("ef", "05")  # bInterfaceClass, bInterfaceSubClass
FIRST_WITH_CREDENTIALS = 247
CREDENTIALS = {"mqtt-password": "DEFECTD_MQTT__PASSWORD_FILE", "mqtt-key": "DEFECTD_MQTT__TLS__KEY"}
KEYWORDS = frozenset({"localhost", "link-local", "multicast"})


class Mistake(Exception):
    """An option that cannot be right; the message names it and says what was expected."""


@dataclass(frozen=True)
class Node:
    """A character device: its path, the driver's name for its major number (of /proc/devices), its group."""

    path: str
    driver: str
    group: str


@dataclass(frozen=True)
class Board:
    """What is here."""

    nodes: tuple[Node, ...] = ()
    usb_cameras: tuple[Node, ...] = ()
    groups: tuple[str, ...] = ()
    credentials: tuple[str, ...] = ()
    argus: bool = False


@dataclass(frozen=True)
class Choices:
    """What the inventory says."""

    systemd: int
    memory_max: str = ""
    addresses: tuple[str, ...] = ()
    usb_camera: bool = False
    jtop: bool = False
    private_users: bool = False
    station: str = ""
    credentials: str = "/etc/defectd/credentials"


def drop_in(board: Board, choices: Choices) -> str:
    """The text of board.conf. Raises Mistake."""
    sections = [
        _devices(board, choices),
        _groups(board, choices),
        _resources(choices),
        _network(choices),
        _newer_keys(choices),
        _credentials(board, choices),
    ]
    head = "# Written by deploy/board_devices.py for this board; the next deployment overwrites it.\n[Service]\n"
    return head + "\n".join("\n".join(lines) + "\n" for lines in sections if lines)


def _devices(board: Board, choices: Choices) -> list[str]:
    allowed = {
        f"DeviceAllow={node.path if node.driver in SHARED_MAJORS or not node.driver else 'char-' + node.driver} rw"
        for node in board.nodes
    }
    lines = sorted(allowed)
    if board.usb_cameras or choices.usb_camera:
        # libusb listens for cameras that come and go on a netlink socket, and does without none.
        lines += ["DeviceAllow=char-usb_device rw", "RestrictAddressFamilies=AF_NETLINK"]
    if board.argus:
        lines.append("BindPaths=-/tmp/argus_socket")  # of nvargus-daemon; PrivateTmp would hide it
    return lines


def _groups(board: Board, choices: Choices) -> list[str]:
    wanted = set(GROUPS) | {node.group for node in board.nodes + board.usb_cameras}
    if choices.jtop:
        wanted.add("jtop")
        if "jtop" not in board.groups:
            raise Mistake(
                "--jtop: there is no group jtop; install jetson-stats' service first: sudo jtop --install-service"
            )
    there = sorted((wanted - {"root", ""}) & set(board.groups))
    return [f"SupplementaryGroups={' '.join(there)}"] if there else []


def _resources(choices: Choices) -> list[str]:
    lines = []
    if choices.memory_max:
        if not re.fullmatch(r"[1-9]\d*[KMGT]|[1-9]\d?%", choices.memory_max):
            raise Mistake(f"--memory-max: got {choices.memory_max!r}, expected for example 6G or 75%")
        lines.append(f"MemoryMax={choices.memory_max}")
    if choices.station:
        if not re.fullmatch(r"[A-Za-z0-9_-]{1,64}", choices.station):
            raise Mistake(f"--station: got {choices.station!r}, expected letters, digits, - and _")
        lines.append(f"LogExtraFields=DEFECTD_STATION={choices.station}")
    return lines


def _network(choices: Choices) -> list[str]:
    if not choices.addresses:
        return []
    if "any" in choices.addresses:
        return ["IPAddressDeny=", "IPAddressAllow="]
    for address in choices.addresses:
        if address not in KEYWORDS:
            try:
                ipaddress.ip_network(address)
            except ValueError as error:
                raise Mistake(
                    f"--allow-address: got {address!r} ({error}); expected an address, a network such as 10.1.0.0/16, "
                    f"one of {', '.join(sorted(KEYWORDS))}, or any"
                ) from None
    # localhost: the resolver of systemd, and a broker on the board
    return ["IPAddressAllow=", "IPAddressAllow=" + " ".join(dict.fromkeys(["localhost", *choices.addresses]))]


def _newer_keys(choices: Choices) -> list[str]:
    lines = ["ProtectProc=invisible"] if choices.systemd >= 247 else []
    if choices.private_users:
        lines.append("PrivateUsers=yes")
    return lines


def _credentials(board: Board, choices: Choices) -> list[str]:
    lines = []
    for name in board.credentials:
        path = f"{choices.credentials}/{name}"
        if choices.systemd >= FIRST_WITH_CREDENTIALS:
            lines.append(f"LoadCredential={name}:{path}")
            path = f"/run/credentials/defectd.service/{name}"
        lines.append(f"Environment={CREDENTIALS[name]}={path}")
    return lines


def look(credentials: str, root: Path = Path("/")) -> Board:
    """What *root* has. *credentials* is a directory, as the daemon will see it."""
    drivers = character_drivers((root / "proc/devices").read_text(encoding="utf-8", errors="replace"))
    found = {path for pattern in NODES for path in (root / "dev").glob(pattern)}
    nodes = tuple(_node(path, drivers) for path in sorted(found) if _is_device(path))
    usb = tuple(_node(path, drivers) for path in usb3_cameras(root) if _is_device(path))
    kept = root / credentials.lstrip("/")
    return Board(
        nodes=nodes,
        usb_cameras=usb,
        groups=tuple(entry.gr_name for entry in grp.getgrall()),
        credentials=tuple(name for name in CREDENTIALS if (kept / name).exists()),
        argus=any((root / folder / "nvargus-daemon.service").exists() for folder in _UNIT_FOLDERS),
    )


_UNIT_FOLDERS = ("etc/systemd/system", "lib/systemd/system", "usr/lib/systemd/system")


def character_drivers(devices: str) -> dict[int, str]:
    """Major number to name, of the first half of /proc/devices."""
    part = devices.partition("Block devices:")[0]
    return {int(major): name for major, name in re.findall(r"^\s*(\d+) (\S+)$", part, re.MULTILINE)}


def usb3_cameras(root: Path) -> list[Path]:
    """The nodes of USB3 Vision cameras (GenICam), which no video driver claims."""
    paths = set()
    for interface in (root / "sys/bus/usb/devices").glob("*:*"):
        try:
            kind = tuple((interface / f"bInterface{name}").read_text().strip() for name in ("Class", "SubClass"))
            device = interface.parent / interface.name.partition(":")[0]
            bus, number = (int((device / name).read_text()) for name in ("busnum", "devnum"))
        except (OSError, ValueError):  # unplugged while we look
            continue
        if kind == USB3_VISION:
            paths.add(root / f"dev/bus/usb/{bus:03d}/{number:03d}")
    return sorted(paths)


def _is_device(path: Path) -> bool:
    try:
        return stat.S_ISCHR(path.stat().st_mode)
    except OSError:
        return False


def _node(path: Path, drivers: Mapping[int, str]) -> Node:
    status = path.stat()
    try:
        group = grp.getgrgid(status.st_gid).gr_name
    except KeyError:
        group = ""
    return Node(str(path), drivers.get(os.major(status.st_rdev), ""), group)


def systemd_version() -> int:
    """Of this machine. Raises Mistake."""
    try:
        said = subprocess.run(["systemctl", "--version"], capture_output=True, text=True, check=True, timeout=30).stdout
        return int(re.match(r"systemd (\d+)", said).group(1))  # type: ignore[union-attr]
    except (OSError, subprocess.SubprocessError, AttributeError) as error:
        raise Mistake(f"systemctl --version does not tell ({error}); say it with --systemd") from None


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the drop-in."""
    options = _parser().parse_args(arguments)
    try:
        choices = Choices(
            systemd=options.systemd or systemd_version(),
            memory_max=options.memory_max,
            addresses=tuple(address for listed in options.allow_address for address in listed.split(",") if address),
            usb_camera=options.usb_camera,
            jtop=options.jtop,
            private_users=options.private_users,
            station=options.station,
            credentials=options.credentials.rstrip("/"),
        )
        board = look(choices.credentials)
        text = drop_in(board, choices)
    except Mistake as mistake:
        sys.stderr.write(f"board_devices: {mistake}\n")
        return 2
    for camera in board.usb_cameras:
        if camera.group in ("", "root"):
            sys.stderr.write(
                f"board_devices: {camera.path}: a USB3 Vision camera that only root may open; its maker's udev rule "
                "gives it a group\n"
            )
    sys.stdout.write(text)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description="Print defectd.service.d/board.conf for this board.")
    parser.add_argument("--systemd", type=int, metavar="VERSION", help="default: ask systemctl")
    parser.add_argument("--memory-max", default="", metavar="6G", help="what the station's processes may use together")
    parser.add_argument(
        "--allow-address", action="append", default=[], metavar="NETWORK",
        help="broker, DNS, cameras, model server; 'any' lifts the filter. Default: the private networks",
    )  # fmt: skip
    parser.add_argument("--usb-camera", action="store_true", help="a USB3 Vision camera is plugged in later")
    parser.add_argument("--jtop", action="store_true", help="[telemetry] jtop = true: the daemon joins the group jtop")
    parser.add_argument("--private-users", action="store_true", help="a user namespace of its own; try it first")
    parser.add_argument("--station", default="", help="goes into every journal entry as DEFECTD_STATION")
    parser.add_argument("--credentials", default=Choices.credentials, metavar="DIRECTORY", help="default: %(default)s")
    return parser


if __name__ == "__main__":
    sys.exit(main())
