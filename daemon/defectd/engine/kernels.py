"""What runs on the GPU around the network, as torch expressions without host synchronisation, so that they can be
queued and captured. They run on any device, which is how they are tested without a GPU."""

from __future__ import annotations

import torch
from torch.nn import functional

from defectd.inspection.letterbox import PADDING_VALUE, Letterbox
from defectd.inspection.yolo import MAX_CANDIDATES, Head


class DeviceLetterbox:
    """Writes frames into *target*, the network's input (1, 3, height, width) of any float type, as RGB in 0..1."""

    def __init__(self, target: torch.Tensor) -> None:
        self._target = target
        self._geometry: Letterbox | None = None

    def write(self, frame: torch.Tensor, letterbox: Letterbox) -> None:
        """Fill the target from *frame*, (height, width, 3) uint8 BGR on the same device.

        As OpenCV does it: bilinear between pixel centres, no antialiasing, rounded to whole levels.
        """
        if letterbox != self._geometry:
            self._target.fill_(PADDING_VALUE / 255)
            self._geometry = letterbox
        levels = frame.permute(2, 0, 1).unsqueeze(0).float()
        if letterbox.resized_hw != letterbox.frame_hw:
            levels = functional.interpolate(
                levels, size=letterbox.resized_hw, mode="bilinear", align_corners=False
            ).round_()
        (height, width), top, left = letterbox.resized_hw, letterbox.pad_top, letterbox.pad_left
        self._target[:, :, top : top + height, left : left + width] = levels.flip(1).div_(255)


def pack(output: torch.Tensor, head: Head) -> torch.Tensor:
    """Candidates (6, K) of a head, as `inspection.yolo` has them but best first and with no threshold yet, and one more
    column that is 1 if the whole output is finite: (6, K + 1) float32, of fixed size, in one copy to the host."""
    values = output[0].float()
    if head is Head.END_TO_END:
        candidates = values.T
    else:
        best, class_ids = values[4:].max(dim=0)
        scores, anchors = best.topk(min(MAX_CANDIDATES, best.shape[0]))
        boxes = values[:4].index_select(1, anchors)
        chosen_ids = class_ids.index_select(0, anchors).float()
        candidates = torch.cat([boxes, scores.unsqueeze(0), chosen_ids.unsqueeze(0)])
    finite = torch.isfinite(values).all().float().expand(6, 1)
    return torch.cat([candidates, finite], dim=1)
