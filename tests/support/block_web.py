"""A web of red blocks for the tiny model of `support.models`, which reports each as one defect `open`."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Mapping, Sequence

import cv2
import numpy as np

from support.coded_pictures import BLOCK_PX, HEIGHT_PX, WIDTH_PX

STEP_PX = BLOCK_PX
ROWS = HEIGHT_PX // BLOCK_PX  # so many frames show a block


def write_web(folder: Path, defects: int, every_rows: int) -> int:
    """Frames of a belt with a defect every so many rows; returns how many frames there are. What comes, comes from
    below."""
    rows = 2 * ROWS + defects * every_rows
    strip = np.zeros((rows * BLOCK_PX, WIDTH_PX, 3), np.uint8)
    for index in range(defects):
        row, column = (ROWS + index * every_rows) * BLOCK_PX, (1 + 5 * index) % (WIDTH_PX // BLOCK_PX) * BLOCK_PX
        strip[row : row + BLOCK_PX, column : column + BLOCK_PX, 2] = 255
    folder.mkdir(parents=True, exist_ok=True)
    frames = rows - ROWS + 1
    for number in range(frames):
        top = number * STEP_PX
        cv2.imwrite(str(folder / f"web-{number:05d}.png"), strip[top : top + HEIGHT_PX])
    return frames


def web_camera(folder: Path, rate_hz: float, **track: Any) -> dict[str, Any]:
    """Its [[camera]]."""
    return {
        "name": "web", "kind": "replay", "mode": "free_run", "path": folder, "rate_hz": rate_hz,
        "max_pixels": HEIGHT_PX * WIDTH_PX, "track": {"report_every_s": 1.0, **track},
    }  # fmt: skip


def of_stream(events: Mapping[str, Mapping[str, Any]], stream: str) -> list[Mapping[str, Any]]:
    """The events of one stream, in the order of their seq."""
    found = [event for event in list(events.values()) if event["schema"].startswith(f"defectd.{stream}/")]
    return sorted(found, key=lambda event: event["seq"])


def account_problems(stretches: Sequence[Mapping[str, Any]]) -> list[str]:
    """What an MES would find fault with in the stretches of one camera."""
    problems = []
    expected = 1
    for stretch in stretches:
        if stretch["from_trigger"] != expected:
            problems.append(f"a stretch begins with {stretch['from_trigger']}, expected {expected}")
        if stretch["frames"] != stretch["to_trigger"] - stretch["from_trigger"] + 1:
            problems.append(f"{stretch['frames']} frames from {stretch['from_trigger']} to {stretch['to_trigger']}")
        if stretch["frames"] != stretch["inspected"] + stretch["dropped"] + stretch["lost"]:
            problems.append(f"frames that nobody accounts for: {dict(stretch)}")
        if stretch["inspected"] != sum(stretch["verdicts"].values()):
            problems.append(f"verdicts do not add up: {dict(stretch)}")
        expected = stretch["to_trigger"] + 1
    return problems
