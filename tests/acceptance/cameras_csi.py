"""The pipelines of CSI sensors: read by GStreamer's own parser as far as their elements exist here, the rest listed."""

from __future__ import annotations

import itertools
import re
import shutil
import subprocess
from typing import Any

from defectd.camera.pipelines import PipelinePlan, plan_pipeline
from defectd.camera_settings import CsiSettings, RtspSettings
from support.proving import Proof, Setting, Short, Skipped

_JETSON = ("nvarguscamerasrc", "nvvidconv", "nvv4l2decoder")
_STAND_IN = "identity"
_PARSE_S = 20


def _plans() -> list[PipelinePlan]:
    """Every way to set a sensor that changes the text, and RTSP through the Jetson's decoder."""
    choices: dict[str, list[Any]] = {
        "sensor_mode": [None, 2], "rate_hz": [30.0, 29.97], "exposure_us": [None, 8333.0], "gain": [None, 2.5],
        "white_balance": ["auto", "daylight"], "flip": [0, 2],
    }  # fmt: skip
    plans = []
    for values in itertools.product(*choices.values()):
        settings = CsiSettings(name="top", kind="csi", **dict(zip(choices, values)))
        plans.append(plan_pipeline(settings.model_dump(mode="json"), lambda _: True))
    for codec in ("h264", "h265"):
        stream = RtspSettings(name="top", kind="rtsp", url="rtsp://127.0.0.1/a", codec=codec)
        plans.append(plan_pipeline(stream.model_dump(mode="json"), lambda _: True))
    return plans


def _parsed(_: Setting) -> str:
    """gst-launch-1.0 takes every text; where an element is missing, another one stands in for it."""
    if shutil.which("gst-launch-1.0") is None:
        raise Skipped("sudo apt-get install gstreamer1.0-tools gstreamer1.0-plugins-base")
    plans = _plans()
    missing = {name for name in {name for plan in plans for name, _ in _elements(plan.text)} if not _exists(name)}
    if missing - set(_JETSON):
        raise Skipped(f"GStreamer has no {', '.join(sorted(missing - set(_JETSON)))}: see docs/cameras.md")
    unproven = set()
    for plan in plans:
        text = plan.text
        for element, properties in _elements(plan.text):
            if element in missing:
                unproven |= {element, *(f"{element} {key}" for key in re.findall(r"([\w-]+)=", properties))}
                text = text.replace(f"{element}{properties}", _STAND_IN)
        refusal = _refusal(text)
        if refusal is not None:
            raise Short(f"the parser refuses {text!r}: {refusal}")
    listed = f"not yet proven on hardware: {', '.join(sorted(unproven))}" if unproven else "all elements exist here"
    return f"{len(plans)} pipelines parsed; {listed}"


def _elements(text: str) -> list[tuple[str, str]]:
    """Each element's name and the rest of its words; the pads' capabilities between them are none."""
    words = [part.partition(" ") for part in text.split(" ! ")]
    return [(name, space + rest) for name, space, rest in words if "/" not in name]


def _exists(element: str) -> bool:
    return subprocess.run(["gst-inspect-1.0", "--exists", element], capture_output=True, check=False).returncode == 0


def _refusal(text: str) -> str | None:
    """What the parser says against *text*. Nothing is started: the last element is one that does not exist."""
    command = ["gst-launch-1.0", *text.split(), "!", "thereisnosuchelement"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=_PARSE_S, check=False)
    said = [line for line in done.stderr.splitlines() if "erroneous pipeline" in line or "WARNING" in line]
    if any("thereisnosuchelement" in line for line in said) and len(said) == 1:
        return None
    return "; ".join(said) or done.stderr[-300:]


CSI = (Proof("csi.parsed", "the pipelines of CSI sensors are read by GStreamer's parser", _parsed),)
