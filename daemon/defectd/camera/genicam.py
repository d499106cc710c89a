"""Aravis itself, and features by their GenICam names: set, and read back."""

from __future__ import annotations

import importlib
import math
from dataclasses import dataclass
from typing import Any

from defectd.camera.typelibs import has_bindings, has_typelib
from defectd.errors import CameraError

_NO_GI = (
    'kind = "aravis" needs PyGObject and Aravis 0.8: sudo apt install python3-gi gir1.2-aravis-0.8, and a virtual '
    "environment made with --system-site-packages by the same Python (/usr/bin/python3)"
)
_NO_TYPELIB = 'kind = "aravis" needs Aravis 0.8: sudo apt install gir1.2-aravis-0.8'
_TOLERANCE = 0.01  # cameras round to what their clock and their amplifier can do


class Unsettable(Exception):
    """The camera does not have the feature, or did not take the value."""


@dataclass(frozen=True)
class Bindings:
    """The Aravis namespace, and the exception that its calls raise."""

    aravis: Any
    error: Any


def load_aravis() -> Bindings:
    """Raises CameraError with the package that is missing."""
    try:
        importlib.import_module("gi").require_version("Aravis", "0.8")
        aravis, glib = (importlib.import_module(f"gi.repository.{name}") for name in ("Aravis", "GLib"))
    except ImportError as error:
        raise CameraError(f"{_NO_GI} ({error})") from error
    except ValueError as error:
        raise CameraError(f"{_NO_TYPELIB} ({error})") from error
    return Bindings(aravis, glib.Error)


def why_no_aravis() -> str | None:
    """The package that is missing, without loading any of it into this process; None if all is there."""
    if not has_bindings():
        return _NO_GI
    return None if has_typelib("Aravis-0.8") else _NO_TYPELIB


def usb_cameras() -> list[tuple[str, str, str]]:
    """(vendor, model, serial) of each USB3 Vision camera. Raises CameraError if Aravis is missing."""
    aravis = load_aravis().aravis
    only_usb(aravis)
    aravis.update_device_list()
    return [
        (aravis.get_device_vendor(index), aravis.get_device_model(index), aravis.get_device_serial_nbr(index))
        for index in range(aravis.get_n_devices())
    ]


def only_usb(aravis: Any) -> None:
    """From now on Aravis broadcasts on no network when it looks for cameras."""
    for kind in ("GigEVision", "Fake"):
        aravis.disable_interface(kind)


def set_feature(bindings: Bindings, camera: Any, name: str, value: Any) -> None:
    """Set it as what it is to the camera, and read it back. Raises Unsettable; GLib.Error if the camera is gone."""
    aravis, node = bindings.aravis, camera.get_device().get_feature(name)
    if node is None:
        raise Unsettable(f"features.{name}: it has no such feature; arv-tool-0.8 features lists those it has")
    if isinstance(node, aravis.GcCommand):
        camera.execute_command(name)
        return
    kind, convert = _kind(aravis, node)
    try:
        converted = convert(value)
    except ValueError as error:
        raise Unsettable(f"features.{name}: expected {convert.__name__}, got {value!r}") from error
    try:
        getattr(camera, f"set_{kind}")(name, converted)
        taken = getattr(camera, f"get_{kind}")(name)
    except bindings.error as error:
        if not is_refusal(error):
            raise
        raise Unsettable(
            f"features.{name} = {value!r}: {error.message}{_choices(aravis, camera, node, name)}"
        ) from error
    same = math.isclose(taken, converted, rel_tol=_TOLERANCE) if kind == "float" else taken == converted
    if not same:
        raise Unsettable(f"features.{name}: asked for {value!r}, it took {taken!r}")


def is_refusal(error: Exception) -> bool:
    """True if the camera is there and its description forbids what was asked for."""
    return getattr(error, "domain", "") == "arv-gc-error-quark"


def _kind(aravis: Any, node: Any) -> tuple[str, Any]:
    """An enumeration is an integer and a string, too: the order matters."""
    if isinstance(node, aravis.GcEnumeration):
        return "string", str
    if isinstance(node, aravis.GcBoolean):
        return "boolean", bool
    if isinstance(node, aravis.GcFloat):
        return "float", float
    if isinstance(node, aravis.GcInteger):
        return "integer", int
    return "string", str


def _choices(aravis: Any, camera: Any, node: Any, name: str) -> str:
    if isinstance(node, aravis.GcEnumeration):
        return f"; expected one of {', '.join(camera.dup_available_enumerations_as_strings(name))}"
    if isinstance(node, aravis.GcFloat):
        return "; expected {:g} to {:g}".format(*camera.get_float_bounds(name))
    if isinstance(node, aravis.GcInteger):
        return "; expected {} to {}".format(*camera.get_integer_bounds(name))
    return ""
