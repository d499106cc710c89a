"""Packages that only an export needs, and a clear word where one is missing."""

from __future__ import annotations

import importlib
from typing import Any

from defectd.errors import ModelError


def required(module: str) -> Any:
    """The imported *module*. Raises ModelError, which says what to install."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        package = module.partition(".")[0]
        raise ModelError(
            f"an export needs the package {package}, which cannot be imported ({error}); pip install 'defectd[export]'"
        ) from error
