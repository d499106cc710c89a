"""The demo's station: what it is called, what it looks for, and the TOML that says so."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from defectd.messaging.topics import Topics
from defectd.watch.listener import BrokerAddress

MODEL = Path(__file__).with_name("boards.torchscript")
CAMERA = "top"
SEED = 7
WIDTH_PX, HEIGHT_PX = 640, 512
DEFECT_RATE = 0.45
DEADLINE_MS = 250
MIN_CONFIDENCE = 0.40  # where boards.md finds recall and precision best together
_GPU_DEVICES = ("/dev/nvidia0", "/dev/nvhost-gpu", "/dev/nvgpu")  # a PC's, and Tegra's of both kernels
CODES = {
    "open": ("PCB-OPEN", "an interrupted track"),
    "short": ("PCB-SHORT", "copper between two tracks"),
    "mousebite": ("PCB-MOUSEBITE", "a bite out of a track's edge"),
    "spur": ("PCB-SPUR", "a spike on a track's edge"),
    "copper": ("PCB-COPPER", "copper where none belongs"),
    "pin-hole": ("PCB-PINHOLE", "a hole in the copper"),
}


@dataclass(frozen=True)
class DemoStation:
    """A simulated line of *units* boards (None: for ever) at *rate_hz*."""

    topics: Topics
    broker: BrokerAddress
    folder: Path
    rate_hz: float
    units: int | None

    @property
    def path(self) -> str:
        """site/area/line/station"""
        return f"{self.topics.site}/{self.topics.area}/{self.topics.line}/{self.topics.station}"

    @property
    def retained(self) -> tuple[str, str]:
        """The topics that stay on a broker after the demo."""
        return self.topics.status, self.topics.birth

    def toml(self) -> str:
        """The configuration file, as a user would write it. The login is not in it."""
        place = self.topics
        lines = [
            "[station]",
            *(f"{key} = {_quoted(getattr(place, key))}" for key in ("site", "area", "line", "station")),
            "\n[mqtt]",
            f"host = {_quoted(self.broker.host)}",
            f"port = {self.broker.port}",
            "\n[model]",
            f"path = {_quoted(str(MODEL))}",
            f"device = {_quoted('auto' if _has_gpu() else 'cpu')}",
            "threads = 1",  # the line, the broker and the view want a core as well: on two cores, two threads wait
            "\n[[camera]]",
            f"name = {_quoted(CAMERA)}",
            'kind = "simulated"',
            f"seed = {SEED}",
            f"rate_hz = {float(self.rate_hz)}",
            *([f"units = {self.units}"] if self.units is not None else []),
            f"width_px = {WIDTH_PX}",
            f"height_px = {HEIGHT_PX}",
            f"defect_rate = {DEFECT_RATE}",
            "\n[inspection]",
            f"deadline_ms = {DEADLINE_MS}",
            'recipe = "demo-board"',
            *(line for name in CODES for line in _defect(name)),
            "\n[state]",
            f"directory = {_quoted(str(self.folder / 'state'))}",
        ]
        return "\n".join(lines) + "\n"


def _defect(class_name: str) -> tuple[str, ...]:
    code, description = CODES[class_name]
    return (
        "\n[[inspection.defect]]",
        f"class_name = {_quoted(class_name)}",
        f"code = {_quoted(code)}",
        f"description = {_quoted(description)}",
        f"min_confidence = {MIN_CONFIDENCE}",
    )


def _has_gpu() -> bool:
    """Without one, `auto` would report that it fell back to the CPU: true, but nothing for a laptop to repair."""
    return any(Path(device).exists() for device in _GPU_DEVICES)


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)  # a JSON string is a TOML string
