"""Opens, configures and starts a GenICam camera through Aravis."""

from __future__ import annotations

import importlib
import socket
from dataclasses import dataclass, fields
from typing import Any, Mapping

from defectd.camera.discovery import GVCP_PORT, find
from defectd.camera.genicam import Bindings, Unsettable, is_refusal, only_usb, set_feature
from defectd.camera.pixel_formats import FORMATS, supported
from defectd.errors import CameraError, CameraLost

_BUFFER_BYTES, _LEAST_BUFFERS, _MOST_BUFFERS = 128 << 20, 4, 16


@dataclass(frozen=True)
class AravisPlan:
    """What the TOML says of such a camera; see AravisSettings."""

    name: str
    address: str | None
    serial: str | None
    user_name: str | None
    interface: str | None
    pixel_format: str | None
    features: Mapping[str, Any]
    trigger_source: str | None
    width_px: int | None
    height_px: int | None
    packet_size: int | None
    packet_delay_us: float | None
    socket_buffer_kb: int | None

    @classmethod
    def of(cls, camera: Mapping[str, Any]) -> AravisPlan:
        """Out of the worker's configuration."""
        return cls(**{field.name: camera[field.name] for field in fields(cls)})

    @property
    def label(self) -> str:
        """For people: how it was asked for."""
        return self.address or (f"serial {self.serial}" if self.serial else f"user_name {self.user_name}")


def open_camera(bindings: Bindings, plan: AravisPlan) -> tuple[Any, str | None]:
    """The camera, and its address if it is on a network. Raises CameraLost, CameraError."""
    address = plan.address
    if address is None and plan.interface is not None:
        address = find(plan.interface, plan.serial, plan.user_name)
    try:
        return (_usb(bindings.aravis, plan) if address is None else _gige(bindings.aravis, address)), address
    except bindings.error as error:
        raise CameraLost(
            f"{plan.label}: {error.message}; is it powered and connected, and used by no other program?"
        ) from error


def _gige(aravis: Any, address: str) -> Any:
    """Through the interface that packets to it take: nobody else hears of it."""
    inet_address = importlib.import_module("gi.repository.Gio").InetAddress
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as route:
        try:
            route.connect((address, GVCP_PORT))  # sends nothing
        except OSError as error:
            raise CameraLost(f"{address}: {error.strerror or error}; is the network interface up?") from error
        own = route.getsockname()[0]
    ends = [inet_address.new_from_string(each) for each in (own, address)]
    return aravis.Camera.new_with_device(aravis.GvDevice.new(*ends))


def _usb(aravis: Any, plan: AravisPlan) -> Any:
    if plan.serial is None:
        raise CameraError(f"{plan.label}: expected interface beside it, or the serial of a USB camera")
    only_usb(aravis)
    aravis.update_device_list()
    for index in range(aravis.get_n_devices()):
        if aravis.get_device_serial_nbr(index) == plan.serial:
            return aravis.Camera.new(aravis.get_device_id(index))
    raise CameraLost(
        f"{plan.label}: no such camera on USB; is it plugged in, and may this user write /dev/bus/usb? Of a GigE "
        "camera, interface must be set"
    )


def configure(bindings: Bindings, camera: Any, plan: AravisPlan) -> int:
    """In the order in which the settings depend on each other, and read back. Returns the exposure time in ns; 0 if
    it is not told, or a trigger begins it. Raises CameraError with what the camera can do, CameraLost."""
    wanted = {"PixelFormat": plan.pixel_format, "Width": plan.width_px, "Height": plan.height_px}
    features = {**{name: value for name, value in wanted.items() if value is not None}, **plan.features}
    try:
        camera.set_range_check_policy(bindings.aravis.RangeCheckPolicy.ENABLE)  # else it takes any number, silently
        camera.set_acquisition_mode(bindings.aravis.AcquisitionMode.CONTINUOUS)
        if plan.trigger_source is None:
            camera.clear_triggers()
        else:
            camera.set_trigger(plan.trigger_source)
        for name, value in features.items():
            set_feature(bindings, camera, name, value)
        if camera.is_gv_device():
            _set_packets(camera, plan)
        _check_pixel_format(camera, plan)
        if plan.trigger_source is None and camera.is_exposure_time_available():
            return int(camera.get_exposure_time() * 1000)
    except Unsettable as error:
        raise CameraError(f"{plan.label}: {error}") from error
    except bindings.error as error:
        kind = CameraError if is_refusal(error) else CameraLost
        raise kind(f"{plan.label}: while it was configured: {error.message}") from error
    return 0


def _set_packets(camera: Any, plan: AravisPlan) -> None:
    if plan.packet_size is not None:
        camera.gv_set_packet_size(plan.packet_size)
    else:
        camera.gv_auto_packet_size()  # tries how long they may be, where the camera can
    if plan.packet_delay_us is not None:
        camera.gv_set_packet_delay(int(plan.packet_delay_us * 1000))


def _check_pixel_format(camera: Any, plan: AravisPlan) -> None:
    if camera.get_pixel_format() & 0xFFFFFFFF not in FORMATS:
        offered = ", ".join(camera.dup_available_pixel_formats_as_strings())
        raise CameraError(
            f"{plan.label}: pixel_format {camera.get_pixel_format_as_string()} is not known to us; expected one of "
            f"{supported()}; the camera offers {offered}"
        )


def start(bindings: Bindings, camera: Any, plan: AravisPlan) -> Any:
    """Its stream, with buffers for a moment of our slowness. Raises CameraLost."""
    try:
        stream = camera.create_stream(None, None)
        if stream is None:
            raise CameraLost(f"{plan.label}: it has no stream for us; does another program receive it?")
        if plan.socket_buffer_kb is not None and camera.is_gv_device():
            stream.set_property("socket-buffer", bindings.aravis.GvStreamSocketBuffer.FIXED)
            stream.set_property("socket-buffer-size", plan.socket_buffer_kb * 1024)
        payload = camera.get_payload()
        for _ in range(min(_MOST_BUFFERS, max(_LEAST_BUFFERS, _BUFFER_BYTES // max(payload, 1)))):
            stream.push_buffer(bindings.aravis.Buffer.new_allocate(payload))
        camera.start_acquisition()
    except bindings.error as error:
        raise CameraLost(f"{plan.label}: it does not start: {error.message}") from error
    return stream
