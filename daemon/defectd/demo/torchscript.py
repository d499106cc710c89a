"""Makes a TorchScript export fit to be shipped: no debug records, no trace of the machine it was made on."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch

_DESCRIPTION = "defectd demo model, trained on simulated boards"


def rewrite(source: Path, target: Path) -> None:
    """Copy a TorchScript file without its *.debug_pkl members (source lines and paths of the exporter).

    Raises ValueError if the copy does not give exactly the same output.
    """
    reader = torch._C.PyTorchFileReader(str(source))
    names = [name for name in reader.get_all_records() if not name.endswith(".debug_pkl")]
    target.parent.mkdir(parents=True, exist_ok=True)
    writer = torch._C.PyTorchFileWriter(str(target))
    for name in names:
        # The writer makes these itself, and refuses them from others.
        if name in ("version", "byteorder", ".data/version", ".format_version", ".storage_alignment") or (
            name.startswith(".data/")
        ):
            continue
        data = reader.get_record(name)
        if name.endswith("extra/config.txt"):
            data = _anonymous(data)
        writer.write_record(name, data, len(data))
    writer.write_end_of_file()
    del writer
    _check_equal(source, target)


def config(model: Path) -> dict[str, Any]:
    """Ultralytics' metadata of an export: imgsz, stride, names and more."""
    extra = {"config.txt": ""}
    load(model, extra)
    return dict(json.loads(extra["config.txt"]))


def load(model: Path, extra: dict[str, str] | None = None) -> Any:
    """A TorchScript module on the CPU, ready to run; fills the extra files that are asked for by name."""
    module = torch.jit.load(  # type: ignore[no-untyped-call]
        str(model), map_location="cpu", _extra_files=extra
    )
    return module.eval()


def _anonymous(data: bytes) -> bytes:
    """The metadata with a description that names no path."""
    metadata = json.loads(data.decode())
    metadata["description"] = _DESCRIPTION
    for key in ("date", "args"):  # a date makes equal trainings differ; args name the data's path
        if key == "date" or "/" in json.dumps(metadata.get(key)):
            metadata.pop(key, None)
    return json.dumps(metadata).encode()


def _check_equal(source: Path, target: Path) -> None:
    height, width = config(target)["imgsz"]
    picture = np.random.Generator(np.random.PCG64(0)).random((1, 3, height, width), dtype=np.float32)
    outputs = []
    for path in (source, target):
        with torch.no_grad():
            outputs.append(load(path)(torch.from_numpy(picture)))
    if not torch.equal(outputs[0], outputs[1]):
        raise ValueError(f"{target}: gives another output than {source}")
