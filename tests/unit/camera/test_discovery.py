"""What GigE Vision cameras answer, and what others send."""

from __future__ import annotations

import socket
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from defectd.camera.discovery import Announcement, parse
from defectd.camera.heartbeat import judge


def answer(status=0, kind=3, **texts):
    """By GigE Vision 2.0, table 14-2."""
    body = bytearray(0xF8)
    body[0x0A:0x10] = bytes.fromhex("0011226688aa")
    body[0x24:0x28] = socket.inet_aton("192.168.10.5")
    body[0x34:0x38] = socket.inet_aton("255.255.255.0")
    places = {"vendor": (0x48, 32), "model": (0x68, 32), "serial": (0xD8, 16), "user_name": (0xE8, 16)}
    for name, text in texts.items():
        start, size = places[name]
        body[start : start + size] = text.encode("latin-1").ljust(size, b"\0")
    return struct.pack(">HHHH", status, kind, len(body), 0xFFFF) + bytes(body)


def test_a_camera_says_who_it_is():
    told = parse(answer(vendor="Basler", model="acA1920-40gc", serial="40012345", user_name="top"))
    assert told == Announcement(
        "192.168.10.5", "255.255.255.0", "00:11:22:66:88:aa", "Basler", "acA1920-40gc", "40012345", "top"
    )


def test_a_text_that_fills_its_field_has_no_zero_and_what_cannot_be_shown_is_escaped():
    told = parse(answer(serial="1234567890123456", model="a\x1b[31mb\xff"))
    assert told is not None
    assert (told.serial, told.model) == ("1234567890123456", "a\\x1b[31mb\\xff")


@pytest.mark.parametrize("datagram", [b"", b"hello", answer(status=0x8001), answer(kind=0x81), answer()[:-1]])
def test_anything_else_is_no_camera(datagram):
    assert parse(datagram) is None


@given(st.binary(max_size=400))
def test_no_datagram_breaks_it(datagram):
    parse(datagram)
    judge(datagram, 1)


def read_ack(value, status=0, number=7):
    return struct.pack(">HHHHI", status, 0x81, 4, number, value)


def test_a_camera_that_somebody_controls_is_well():
    assert judge(read_ack(2), 7) is None


def test_a_camera_that_nobody_controls_has_forgotten_us():
    assert "we control it no longer" in str(judge(read_ack(0), 7))


@pytest.mark.parametrize("answered", [b"", read_ack(0, status=0x8006), read_ack(0, number=6)])
def test_a_camera_that_refuses_to_tell_is_there(answered):
    assert judge(answered, 7) is None
