"""deploy/board_devices.py, which is a script, as a module."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

SCRIPT = Path(__file__).parents[2] / "deploy/board_devices.py"
_SPEC = importlib.util.spec_from_file_location("board_devices", SCRIPT)
assert _SPEC is not None and _SPEC.loader is not None
board_devices = importlib.util.module_from_spec(_SPEC)
sys.modules["board_devices"] = board_devices  # dataclasses look their module up
_SPEC.loader.exec_module(board_devices)

Board, Choices, Node, Mistake = board_devices.Board, board_devices.Choices, board_devices.Node, board_devices.Mistake
drop_in, look, main = board_devices.drop_in, board_devices.look, board_devices.main
character_drivers, usb3_cameras = board_devices.character_drivers, board_devices.usb3_cameras
