"""Whether Python finds TensorRT, and which one."""

from __future__ import annotations

from typing import Any, Mapping

from defectd.doctor.probes.answering import answer


def probe(_: Mapping[str, Any]) -> Mapping[str, Any]:
    """Raises ImportError and whatever a broken library raises."""
    import tensorrt  # noqa: PLC0415 - it is what is examined

    return {"version": str(tensorrt.__version__)}


if __name__ == "__main__":
    answer(probe)
