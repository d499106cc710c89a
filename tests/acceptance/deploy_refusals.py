"""Bad input: each ends with a message that names it, and a clean host stays clean."""

from __future__ import annotations

import contextlib
import re
import shutil
from dataclasses import dataclass, field
from typing import Any, Callable, Iterator, Mapping

from support.factory import TARGET, Factory, Station, factory
from support.proving import Proof, Setting, Short

Broken = Callable[[Factory, Station], "contextlib.AbstractContextManager[None]"]


@contextlib.contextmanager
def _as_it_is(here: Factory, station: Station) -> Iterator[None]:
    yield


def _with(do: str, undo: str) -> Broken:
    @contextlib.contextmanager
    def broken(here: Factory, station: Station) -> Iterator[None]:
        station.host.run(do)
        try:
            yield
        finally:
            station.host.run(undo)

    return broken


@contextlib.contextmanager
def _no_numpy(here: Factory, station: Station) -> Iterator[None]:
    """The laptop has no internet, and one wheel was never fetched."""
    folder = here.controller.directory / "deploy/.cache/wheels"
    for wheel in list(folder.glob("cp311-*/numpy-*.whl")):
        shutil.move(str(wheel), str(here.directory / wheel.name))
        try:
            yield
        finally:
            shutil.move(str(here.directory / wheel.name), str(wheel))


_GUEST = (
    "useradd -m guest; install -d -o guest -m 700 /home/guest/.ssh; "
    "install -o guest -m 600 /home/deploy/.ssh/authorized_keys /home/guest/.ssh/"
)
_32_BIT = (
    "printf '#!/bin/sh\\nexec setarch i686 /usr/bin/python3 \"$@\"\\n' >/usr/local/bin/python32; "
    "chmod 755 /usr/local/bin/python32"
)
_OLD_JETPACK = "echo '# R32 (release), REVISION: 7.4, GCID: 1, BOARD: t186ref, EABI: aarch64' >/etc/nv_tegra_release"


@dataclass(frozen=True)
class Refusal:
    """*words*: what the message must have. *changes* are to the inventory, *variables* of make."""

    words: tuple[str, ...]
    broken: Broken = _as_it_is
    changes: Mapping[str, Any] = field(default_factory=dict)
    more: Mapping[str, Any] = field(default_factory=dict)
    variables: Mapping[str, str] = field(default_factory=dict)
    host: str = "orin02"

    def __call__(self, setting: Setting) -> str:
        here = factory()
        station = _clean(here)
        inventory = here.write_inventory("refused.yml", more=self.more, **self.changes)
        with self.broken(here, station):
            run = here.controller.make("deploy", self.host, INVENTORY=inventory, **self.variables)
        if run.code == 0:
            raise Short(f"make ended with 0: {run.table}")
        absent = [word for word in self.words if word not in run.message]
        left = station.host.run("ls -d /opt/defectd /etc/defectd /var/lib/defectd 2>/dev/null || true").split()
        if absent or left:
            raise Short(f"without {absent}, left {left}: {run.message[-900:]}")
        return f"{run.took_s:.0f} s: {_told(run.message, self.words[0])}"


def _told(message: str, word: str) -> str:
    line = next(line for line in message.splitlines() if word in line)
    line = re.sub(r"^\S+ +- +FAILED +\d+ +\d+ s +", "", line.strip())
    return line if len(line) < 220 else f"{line[:217]}…"


def _clean(here: Factory) -> Station:
    """orin02 as it came; it is booted anew if somebody has deployed there."""
    here.wheels_for(TARGET)
    found = here.stations.get("orin02")
    if found is not None and not found.host.run("ls -d /opt/defectd 2>/dev/null || true").strip():
        return found
    if found is not None:
        here.remove("orin02")
    return here.add("orin02", "10.77.0.12")


_SHROT = {
    "station_inspection": {"defect": [{"class_name": "shrot", "code": "PCB-SHORT", "min_confidence": 0.5}]}
}  # fmt: skip
_REFUSALS: tuple[tuple[str, str, Refusal], ...] = (
    ("not-in-inventory", "HOST= that no inventory has", Refusal(("orin77", "stations orin02"), host="orin77")),
    ("nobody-there", "an address where nobody answers",
     Refusal(("SSH:", "10.77.0.99"), host="orin09", more={"orin09": {"ansible_host": "10.77.0.99"}})),
    ("no-sudo", "a login that may not use sudo",
     Refusal(("may not use sudo", "ASK=1"), broken=_with(_GUEST, "userdel -rf guest 2>/dev/null"),
             changes={"ansible_user": "guest"})),
    ("no-python", "a Python that is not there",
     Refusal(("/usr/bin/python4", "station_python"), changes={"station_python": "/usr/bin/python4"})),
    ("architecture", "a 32-bit system",
     Refusal(("cp311-i686", "expected one of"), broken=_with(_32_BIT, "rm /usr/local/bin/python32"),
             changes={"station_python": "/usr/local/bin/python32"})),
    ("jetpack", "JetPack 4",
     Refusal(("JetPack 4", "too old", "flash"), broken=_with(_OLD_JETPACK, "rm /etc/nv_tegra_release"))),
    ("disk", "400 MB free",
     Refusal(("MB are free for /opt/defectd", "make room"),
             broken=_with("mount -t tmpfs -o size=400m tmpfs /opt", "umount /opt"))),
    ("torch", "JetPack's torch is missing",
     Refusal(("has no torch",), broken=_with(
         "mount -t tmpfs tmpfs /usr/local/lib/python3.11/dist-packages",
         "umount /usr/local/lib/python3.11/dist-packages"))),
    ("wheel", "no internet, and one wheel was not fetched before", Refusal(("numpy", "make wheels"), broken=_no_numpy)),
    ("version", "a version that is nowhere", Refusal(("VERSION=9.9.9", "v9.9.9"), variables={"VERSION": "9.9.9"})),
    ("config", "a class that the model does not have", Refusal(("shrot", "nothing was sent"), changes=_SHROT)),
    ("config-key", "a key that there is not",
     Refusal(("deadlin_ms",), changes={"station_more": {"inspection": {"deadlin_ms": 250}}})),
    ("model", "a model that is not on the laptop",
     Refusal(("/nowhere.torchscript", "not on this machine"), variables={"MODEL": "/nowhere.torchscript"})),
    ("certificate", "a certificate that is not on the laptop",
     Refusal(("/nowhere.crt", "not on this machine"),
             more={"orin02": {"ansible_host": "10.77.0.12", "station_tls": {"ca": "/nowhere.crt"}}})),
    ("station-name", "a name that cannot be in a topic",
     Refusal(("station.line",), changes={"station_line": "line 3/b"})),
)  # fmt: skip

REFUSED = tuple(Proof(f"refused.{name}", claim, refusal) for name, claim, refusal in _REFUSALS)
