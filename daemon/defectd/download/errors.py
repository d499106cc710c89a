"""How a download ends when it does not end well, and what it may run into on its way."""

from __future__ import annotations

from typing import Literal

from defectd.errors import DefectdError, ModelError

Code = Literal[
    "disk_full", "not_found", "redirect", "refused", "signature", "source_missing", "stalled", "timed_out",
    "tls", "too_large", "unreachable", "wrong_bytes", "wrong_manifest",
]  # fmt: skip


class DownloadError(ModelError):
    """It is over: `code` says why for machines, the text for a technician, with what to do."""

    def __init__(self, code: Code, text: str) -> None:
        super().__init__(text)
        self.code: Code = code


class Stopped(DefectdError):
    """Somebody wanted it to end. What has arrived is kept, to go on from there."""


class MayPass(Exception):
    """Trouble that may be over a moment later: try again, and give up with `code` when the time is over."""

    def __init__(self, code: Code, text: str) -> None:
        super().__init__(text)
        self.code: Code = code


class WrongBytes(Exception):
    """What arrives is not what the manifest declares: begin anew, once."""
