"""The drop-in for a board: what is allowed follows from what is there, and from what the inventory says."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from support.board_drop_in import Board, Choices, Mistake, Node, character_drivers, drop_in, look, main, usb3_cameras

PROC_DEVICES = "Character devices:\n  1 mem\n 10 misc\n226 drm\n505 nvhost\n\nBlock devices:\n  7 loop\n226 other\n"


def lines(board: Board | None = None, **choices: Any) -> list[str]:
    return drop_in(board or Board(), Choices(**{"systemd": 252, **choices})).splitlines()


def test_a_driver_with_numbers_of_its_own_is_allowed_as_a_whole():
    nodes = tuple(Node(f"/dev/nvhost-{name}", "nvhost", "video") for name in ("ctrl", "gpu"))
    assert [line for line in lines(Board(nodes=nodes)) if "Device" in line] == ["DeviceAllow=char-nvhost rw"]


def test_of_a_driver_that_shares_its_numbers_only_the_node_is_allowed():
    assert "DeviceAllow=/dev/nvmap rw" in lines(Board(nodes=(Node("/dev/nvmap", "misc", "video"),)))


def test_a_node_of_an_unknown_driver_is_allowed_by_its_path():
    assert "DeviceAllow=/dev/nvsciipc rw" in lines(Board(nodes=(Node("/dev/nvsciipc", "", ""),)))


def test_the_daemon_joins_the_groups_of_its_devices_if_they_exist():
    board = Board(nodes=(Node("/dev/x", "x", "gpio"), Node("/dev/y", "y", "root")), groups=("gpio", "video", "root"))
    assert "SupplementaryGroups=gpio video" in lines(board)


def test_a_board_without_such_groups_starts_all_the_same():
    assert not [line for line in lines(Board(groups=("root",))) if "SupplementaryGroups" in line]


def test_usb_is_open_only_with_a_usb_camera():
    camera = Board(usb_cameras=(Node("/dev/bus/usb/001/002", "usb_device", "plugdev"),), groups=("plugdev",))
    assert not [line for line in lines() if "usb" in line or "NETLINK" in line]
    for found in (lines(camera), lines(usb_camera=True)):
        assert {"DeviceAllow=char-usb_device rw", "RestrictAddressFamilies=AF_NETLINK"} <= set(found)
    assert "SupplementaryGroups=plugdev" in lines(camera)


def test_credentials_are_loaded_by_systemd_where_it_can():
    found = lines(Board(credentials=("mqtt-password",)), systemd=247)
    assert "LoadCredential=mqtt-password:/etc/defectd/credentials/mqtt-password" in found
    assert "Environment=DEFECTD_MQTT__PASSWORD_FILE=/run/credentials/defectd.service/mqtt-password" in found


def test_credentials_are_read_from_their_files_where_systemd_cannot():
    found = lines(Board(credentials=("mqtt-key",)), systemd=245)
    assert "Environment=DEFECTD_MQTT__TLS__KEY=/etc/defectd/credentials/mqtt-key" in found
    assert not [line for line in found if "LoadCredential" in line]


def test_addresses_replace_the_default_and_keep_localhost():
    found = lines(addresses=("10.1.0.0/16", "fd00::5", "10.1.0.0/16"))
    assert "IPAddressAllow=localhost 10.1.0.0/16 fd00::5" in found
    assert found.index("IPAddressAllow=") < found.index("IPAddressAllow=localhost 10.1.0.0/16 fd00::5")


def test_any_address_lifts_the_filter():
    assert {"IPAddressDeny=", "IPAddressAllow="} <= set(lines(addresses=("any",)))


def test_a_usual_board_says_no_more_than_it_must():
    assert lines(systemd=245)[1:] == ["[Service]"]


@pytest.mark.parametrize(
    ("choices", "words"),
    [
        ({"memory_max": "6 G"}, "expected for example 6G"),
        ({"memory_max": "0"}, "expected for example 6G"),
        ({"memory_max": "6G\nUser=root"}, "expected for example 6G"),
        ({"addresses": ("broker.lan",)}, "expected an address"),
        ({"addresses": ("10.1.0.5/16",)}, "has host bits set"),
        ({"station": "a b"}, "expected letters"),
        ({"jtop": True}, "jtop --install-service"),
    ],
)
def test_a_mistake_in_the_inventory_is_named(choices: dict[str, Any], words: str):
    with pytest.raises(Mistake, match=words):
        lines(**choices)


def test_a_mistake_ends_with_2_and_prints_nothing(capsys: pytest.CaptureFixture[str]):
    assert main(["--systemd", "252", "--memory-max", "much"]) == 2
    printed = capsys.readouterr()
    assert printed.out == "" and "--memory-max: got 'much'" in printed.err


def test_majors_are_those_of_character_devices():
    assert character_drivers(PROC_DEVICES) == {1: "mem", 10: "misc", 226: "drm", 505: "nvhost"}


def test_a_usb3_vision_camera_is_found_by_its_interface(tmp_path: Path):
    for name, kind, sub in (("1-2", "ef", "05"), ("1-3", "03", "01")):
        device, interface = tmp_path / f"sys/bus/usb/devices/{name}", tmp_path / f"sys/bus/usb/devices/{name}:1.0"
        device.mkdir(parents=True)
        interface.mkdir()
        (device / "busnum").write_text("1\n")
        (device / "devnum").write_text(f"{name[-1]}\n")
        (interface / "bInterfaceClass").write_text(f"{kind}\n")
        (interface / "bInterfaceSubClass").write_text(f"{sub}\n")
    (tmp_path / "sys/bus/usb/devices/1-4:1.0").mkdir()  # unplugged meanwhile
    assert usb3_cameras(tmp_path) == [tmp_path / "dev/bus/usb/001/002"]


def test_a_board_is_looked_at(tmp_path: Path):
    for folder in ("proc", "dev", "etc/systemd/system", "etc/defectd/credentials"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "proc/devices").write_text(PROC_DEVICES)
    (tmp_path / "dev/video0").write_text("no device")
    (tmp_path / "dev/video1").symlink_to("/dev/null")
    (tmp_path / "etc/systemd/system/nvargus-daemon.service").write_text("")
    (tmp_path / "etc/defectd/credentials/mqtt-key").write_text("")
    board = look("/etc/defectd/credentials", tmp_path)
    assert [(node.path, node.driver) for node in board.nodes] == [(str(tmp_path / "dev/video1"), "mem")]
    assert board.argus and board.credentials == ("mqtt-key",) and "root" in board.groups
