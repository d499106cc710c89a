"""Files with the outside of a TorchScript export and nothing in it that runs. No torch."""

from __future__ import annotations

import io
import json
import pickle
import zipfile
from typing import Any

CONFIG: dict[str, Any] = {
    "description": "Ultralytics YOLOv8n-pcb model",
    "version": "8.4.190",
    "stride": 16,
    "task": "detect",
    "head": "Detect",
    "batch": 1,
    "imgsz": [640, 512],
    "names": {"0": "open", "1": "short"},
    "args": {"batch": 1, "nms": None, "dynamic": False},
    "channels": 3,
    "end2end": False,
}


class Exploding:
    """A pickle that shows when somebody loads it."""

    def __reduce__(self) -> tuple[Any, ...]:
        return (exec, ("raise AssertionError('a checkpoint was unpickled')",))


def archive(config: Any = CONFIG) -> bytes:
    """A zip with the inside of a TorchScript file; with *config* None, that of a checkpoint."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        file.writestr("best/data.pkl", pickle.dumps(Exploding()))
        if config is not None:
            file.writestr("best/code/__torch__/model.py", "class Model(Module): ...")
            text = config if isinstance(config, (bytes, str)) else json.dumps(config)
            file.writestr("best/extra/config.txt", text)
    return buffer.getvalue()
