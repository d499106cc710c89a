"""What is missing is told without loading it."""

from __future__ import annotations

from defectd.camera import typelibs
from defectd.camera.running import why_no_gstreamer


def test_missing_bindings_name_their_packages_and_another_way(monkeypatch):
    monkeypatch.setattr(typelibs, "find_spec", lambda name: None)
    told = str(why_no_gstreamer())
    assert "apt-get install python3-gi gir1.2-gstreamer-1.0" in told and 'kind = "opencv"' in told


def test_a_missing_description_names_its_package(monkeypatch, tmp_path):
    monkeypatch.setattr(typelibs, "find_spec", lambda name: object())
    monkeypatch.setattr(typelibs.Path, "glob", lambda *_: iter(()))
    monkeypatch.setenv("GI_TYPELIB_PATH", str(tmp_path))
    assert str(why_no_gstreamer()).endswith("apt-get install gir1.2-gstreamer-1.0")
    (tmp_path / "Gst-1.0.typelib").touch()
    assert why_no_gstreamer() is None
