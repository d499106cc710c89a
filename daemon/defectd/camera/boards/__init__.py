"""The simulated line's boards: pictures of a production run of circuit boards, with known defects."""

from __future__ import annotations

from defectd.camera.boards.defects import CLASS_NAMES
from defectd.camera.boards.line import Board, BoardLine, TrueDefect

__all__ = ["CLASS_NAMES", "Board", "BoardLine", "TrueDefect"]
