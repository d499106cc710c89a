"""Errors, named by what the caller can do about them."""

from __future__ import annotations


class DefectdError(Exception):
    """Root of all errors that a person is meant to read."""


class SettingsError(DefectdError):
    """The configuration is wrong: the person who wrote it must change it. Lists every mistake at once."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


class ModelError(DefectdError):
    """The model file cannot be served: bring another one."""


class StateError(DefectdError):
    """The state directory cannot be used: free space or fix its permissions."""


class StartupError(DefectdError):
    """A part did not become ready at start; the message says which and what to do."""


class CameraError(DefectdError):
    """The camera cannot deliver as configured: change the configuration."""


class CameraLost(DefectdError):
    """The camera is gone for now: close it and try again later."""


class StationFailed(DefectdError):
    """The station cannot go on; only a new process can. A bug, or a machine that is broken."""
