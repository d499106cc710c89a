"""MTU, socket buffers and USB memory of stations that are not here."""

from __future__ import annotations

from pathlib import Path

import pytest

from defectd.camera_settings import AravisSettings
from defectd.doctor.checks.vision import buffer_finding, interface_to, mtu_finding, usb_finding
from defectd.doctor.report import Level


def camera(**changes):
    return AravisSettings(name="top", kind="aravis", **{"address": "192.168.10.5", **changes})


@pytest.mark.parametrize(
    ("mtu", "packet_size", "level"),
    [
        (9000, None, Level.OK),
        (9000, 8192, Level.OK),
        (1500, None, Level.WARNING),
        (1500, 1500, Level.WARNING),
        (1500, 8192, Level.ERROR),
        (None, 8192, Level.SKIPPED),
    ],
)
def test_short_packets_are_a_warning_and_those_that_do_not_fit_an_error(mtu, packet_size, level):
    told = mtu_finding("top", "eth1", mtu, packet_size)
    assert told.level is level
    assert told.level in (Level.OK, Level.SKIPPED) or "sudo ip link set eth1 mtu 9000" in told.remedy


def test_a_small_socket_buffer_is_told_with_the_command_that_raises_it():
    told = buffer_finding(212_992, [camera(), camera(socket_buffer_kb=20_000)])
    assert told.level is Level.WARNING and "sudo sysctl -w net.core.rmem_max=20480000" in told.remedy
    assert buffer_finding(32 << 20, [camera()]).level is Level.OK
    assert buffer_finding(None, [camera()]).level is Level.SKIPPED


@pytest.mark.parametrize(
    ("usb_mb", "cameras", "level"),
    [(16, 1, Level.WARNING), (256, 1, Level.OK), (256, 2, Level.WARNING), (1000, 8, Level.OK), (0, 2, Level.OK)],
)
def test_usb_cameras_need_more_than_the_kernel_gives(usb_mb, cameras, level):
    assert usb_finding(usb_mb, cameras).level is level


@pytest.mark.skipif(not Path("/sys/class/net/lo").exists(), reason="needs a loopback interface")
def test_the_interface_of_an_address_is_found_without_sending_anything():
    assert interface_to("127.0.0.1") == "lo"
