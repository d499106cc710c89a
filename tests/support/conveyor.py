"""A belt with boards on it, as a camera sees it that nobody triggers: they slide in, stop, and slide out."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from defectd.camera.boards import BoardLine

SIZE = WIDTH, HEIGHT = 400, 300
BOARD_X, BOARD_Y, BOARD_PX = 100, 50, 200  # where a board stops
_EMPTY_FRAMES = 8


def boards(count: int) -> list[np.ndarray]:
    """The boards of one line."""
    line = BoardLine(5, BOARD_PX, BOARD_PX)
    return [line.board(unit).image for unit in range(1, count + 1)]


def film(folder: Path, passing: list[np.ndarray], stop_frames: int = 5) -> Path:
    """Write what the camera sees while these boards pass into *folder*, one file for each frame."""
    folder.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(1)
    frames = [belt(noise) for _ in range(_EMPTY_FRAMES)]
    for board in passing:
        xs = [*range(-160, BOARD_X, 40), *[BOARD_X] * stop_frames, *range(BOARD_X + 40, WIDTH, 40)]
        frames += [belt(noise, board, x) for x in xs]
        frames += [belt(noise) for _ in range(_EMPTY_FRAMES)]
    for index, frame in enumerate(frames):
        cv2.imwrite(str(folder / f"frame{index:05d}.png"), frame)
    return folder


def belt(noise: np.random.Generator, board: np.ndarray | None = None, x: int = 0) -> np.ndarray:
    """One frame."""
    frame = np.full((HEIGHT, WIDTH, 3), 150, np.uint8)
    if board is not None:
        visible = board[:, max(0, -x) : WIDTH - x]
        frame[BOARD_Y : BOARD_Y + board.shape[0], max(0, x) : max(0, x) + visible.shape[1]] = visible
    return (frame + noise.normal(0, 2, frame.shape)).clip(0, 255).astype(np.uint8)
