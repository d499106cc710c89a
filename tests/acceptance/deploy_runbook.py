"""What docs/runbook.md tells people to do, done: back up and restore, and give a station another name."""

from __future__ import annotations

import shutil
import subprocess

from support.factory import Factory, Station, deployed, factory
from support.factory_network import CONTROLLER, PORT
from support.proving import Proof, Setting, Short, Skipped

_KEPT = "/home/deploy/orin01.tgz"
_BACK_UP = f"systemctl stop defectd && tar -C / -cz etc/defectd var/lib/defectd >{_KEPT}; systemctl start defectd"
_RESTORE = (
    f"systemctl stop defectd && tar -C / --same-owner -xz <{_KEPT} && chown -R defectd: /var/lib/defectd && "
    "rm -f /var/lib/defectd/outbox.db*"
)


def _restored(setting: Setting) -> str:
    here, station = factory(), factory().orin01()
    station.inspects()
    station.host.run(_BACK_UP)
    station.inspects()
    models = station.host.run("cd /var/lib/defectd && find models* -type f | sort | xargs sha256sum | sha256sum")
    deployed(here.controller.make("undeploy", "orin01", PURGE="1"))
    deployed(here.controller.make("deploy", "orin01"))
    station.inspects()
    epochs = _epochs(station)
    station.host.run(_RESTORE)
    again = deployed(here.controller.make("deploy", "orin01"))
    station.inspects()
    back = station.host.run("cd /var/lib/defectd && find models* -type f | sort | xargs sha256sum | sha256sum")
    if len(_epochs(station)) != len(epochs) + 1 or station.holes():
        raise Short(f"epochs {epochs}, then {_epochs(station)}; {station.holes()} numbers missing")
    mb = int(station.host.run(f"stat -c %s {_KEPT}")) / 1e6
    return (
        f"{mb:.1f} MB; purged, deployed, restored, deployed ({again.table['orin01'][4].split('; ')[-1]}): it inspects "
        f"under a new epoch, no number twice; store of models {'as before' if back == models else 'begun anew'}"
    )


def _epochs(station: Station) -> list[str]:
    return list(dict.fromkeys(one["epoch"] for one in station.events()))


def _renamed(setting: Setting) -> str:
    if shutil.which("mosquitto_pub") is None:
        raise Skipped("no mosquitto_pub; run: sudo apt-get install mosquitto-clients")
    here, station = factory(), factory().orin01()
    here.network.certify("station", "aoi9")
    said = {"ansible_host": station.address, "station_name": "aoi9", "station_tls": here.network.certificates("aoi9")}
    inventory = here.write_inventory("renamed.yml", more={"orin01": said})
    run = deployed(here.controller.make("deploy", "orin01", INVENTORY=inventory))
    if not here.network.events("aoi9"):
        raise Short("nothing comes under the new name")
    left = _clear(here, "defectd/v1/plant1/smt/line3/orin01", "orin01")
    deployed(here.controller.make("deploy", "orin01"))
    station.inspects()
    if left:
        raise Short(f"still on the broker: {left}")
    return f"{run.table['orin01'][4].split('; ')[1]}; events under the new name; nothing is retained under the old one"


def _clear(here: Factory, prefix: str, name: str) -> list[str]:
    """With the old certificate; returns what is retained below *prefix* after that."""
    for topic in ("status", "birth", "model/reported"):
        _mosquitto(here, "pub", name, "-r", "-n", "-t", f"{prefix}/{topic}")
    return _mosquitto(here, "sub", "mes", "--retained-only", "-W", "3", "-F", "%t", "-t", f"{prefix}/#").split()


def _mosquitto(here: Factory, what: str, who: str, *words: str) -> str:
    files = here.network.certificates(who)
    login = ["--cafile", files["ca"], "--cert", files["cert"], "--key", files["key"]]
    command = [*here.network.inside, f"mosquitto_{what}", "-h", CONTROLLER, "-p", str(PORT), *login, *words]
    told = subprocess.run(command, capture_output=True, text=True, check=False)
    if told.returncode not in (0, 27):  # 27: the time is over
        raise Short(f"mosquitto_{what}: {told.stderr.strip()}")
    return told.stdout


RUNBOOK = (
    Proof("runbook.restore", "back up, purge, restore with the runbook's commands", _restored),
    Proof("runbook.renamed", "another name in the inventory, and the old one off the broker", _renamed),
)
