"""What is said where PyGObject or Aravis is missing."""

from __future__ import annotations

import sys

import pytest

from defectd.camera import genicam, typelibs
from defectd.errors import CameraError


def test_a_missing_pygobject_is_told_with_its_packages(monkeypatch):
    monkeypatch.setitem(sys.modules, "gi", None)
    with pytest.raises(CameraError, match=r"sudo apt install python3-gi gir1.2-aravis-0.8, .* --system-site-packages"):
        genicam.load_aravis()


def test_whether_it_is_missing_is_known_without_loading_it(monkeypatch, tmp_path):
    monkeypatch.setattr(typelibs, "find_spec", lambda name: None)
    assert "python3-gi" in str(genicam.why_no_aravis())
    monkeypatch.setattr(typelibs, "find_spec", lambda name: object())
    (tmp_path / "Aravis-0.8.typelib").touch()
    monkeypatch.setenv("GI_TYPELIB_PATH", str(tmp_path))
    assert genicam.why_no_aravis() is None
