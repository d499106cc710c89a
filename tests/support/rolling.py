"""A station that takes rollouts, and the technician who sends them: signed commands over a real broker."""

from __future__ import annotations

import contextlib
import hashlib
import json
import time
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any, Iterator, Mapping

import paho.mqtt.publish

from defectd.models.envelope import PAYLOAD_COMMAND
from defectd.models.manifest import MANIFEST
from support.bundles import OPS_KEY, sign
from support.proving_ground import Ground, ground
from support.signed import tiny_bundle, write_root
from support.station import merged, wait_until

FINAL = ("committed", "rejected", "failed", "rolled_back", "cancelled")
STATION = "prove/smt/line1/aoi1"
QUICK = {
    "shadow_units": 10, "probation_units": 20, "probation_s": 1, "max_slower_percent": 10_000, "min_free_mb": 0,
    "max_temp_c": 150,
}  # fmt: skip
"""A policy for a test that has seconds, on a machine that others use, too."""


@dataclass
class Rolling:
    """The ground, the folder that the station's source `usb` is, and the seq of the last command."""

    here: Ground
    usb: Path
    root: Path
    seq: int = 0
    sent: list[str] = field(default_factory=list)

    def send(
        self, bundle: Path | None = None, *, action: str = "deploy", policy: Mapping[str, Any] = QUICK,
        signer: int = OPS_KEY, **changes: Any,
    ) -> str:  # fmt: skip
        """A command for *bundle* (a folder in `usb`), signed and retained; its request_id."""
        self.seq += 1
        fields = command(bundle, self.seq, action=action, policy=dict(policy), **changes)
        self.publish(sign(json.dumps(fields).encode(), PAYLOAD_COMMAND, signer).to_json())
        self.sent.append(fields["request_id"])
        return str(fields["request_id"])

    def publish(self, payload: bytes) -> None:
        """Whatever it is, retained on model/desired."""
        paho.mqtt.publish.single(
            f"defectd/v1/{STATION}/model/desired", payload, qos=1, retain=True,
            hostname=self.here.broker.host, port=self.here.broker.port,
        )  # fmt: skip

    @property
    def reported(self) -> dict[str, Any]:
        """What the station says last."""
        return self.here.collector.retained.get("reported") or {}

    def rollout(self, request_id: str) -> dict[str, Any]:
        """What the station says last of that request; empty if it says nothing of it."""
        found = self.reported.get("rollout") or {}
        return found if found.get("request_id") == request_id else {}

    def ended(self, request_id: str, timeout_s: float = 90.0) -> dict[str, Any]:
        """The report of its end. Raises TimeoutError with what is known."""
        with self._explained():
            wait_until(lambda: self.rollout(request_id).get("finished"), timeout_s, f"the end of {request_id}")
        return self.rollout(request_id)

    def reaches(self, request_id: str, state: str, timeout_s: float = 60.0) -> None:
        """Until it is in *state*."""
        with self._explained():
            wait_until(lambda: self.rollout(request_id).get("state") == state, timeout_s, f"{request_id} is {state}")

    def answered(self, request_id: str | None, timeout_s: float = 20.0) -> dict[str, Any]:
        """The station's answer to the last command."""

        def last() -> dict[str, Any]:
            return self.reported.get("last_command") or {}

        with self._explained():
            wait_until(lambda: last() and last()["request_id"] == request_id, timeout_s, f"an answer to {request_id}")
        return last()

    @contextlib.contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except TimeoutError as error:
            told = json.dumps(self.reported, indent=1)
            raise TimeoutError(f"{error}\n{told}\n{self.here.daemon.log()[-3000:]}") from None


def command(bundle: Path | None, seq: int, *, action: str = "deploy", **changes: Any) -> dict[str, Any]:
    """The fields of a command."""
    now = datetime.now(timezone.utc).replace(microsecond=0)
    fields: dict[str, Any] = {
        "schema": "defectd.command/1.0",
        "request_id": f"request-{seq}-{time.time_ns()}",
        "seq": seq,
        "created": (now - timedelta(seconds=5)).isoformat().replace("+00:00", "Z"),
        "expires": (now + timedelta(hours=1)).isoformat().replace("+00:00", "Z"),
        "audience": {"kind": "station", "value": STATION},
        "action": action,
    }
    if bundle is not None:
        manifest = (bundle / MANIFEST).read_bytes()
        fields["target"] = {
            "manifest_sha256": hashlib.sha256(manifest).hexdigest(),
            "release_seq": json.loads(manifest)["release_seq"],
            "source": "usb",
            "path": bundle.name,
        }
    return {**fields, **changes}


@contextlib.contextmanager
def rolling(
    directory: Path, units: int = 3000, rate_hz: float = 20.0, changes: Mapping[str, Any] | None = None,
    *, factory: Path | None = None, started: bool = True, **environment: str,
) -> Iterator[Rolling]:  # fmt: skip
    """A station that serves *factory* (a tiny bundle of its own, if none is given), and takes bundles from `usb`;
    *environment* is added to the daemon's."""
    directory.mkdir(parents=True, exist_ok=True)
    root, usb = write_root(directory / "root.json"), directory / "usb"
    usb.mkdir(exist_ok=True)
    factory = factory or tiny_bundle(directory / "factory", seq=1, version="1")
    settings = {
        "model": {"path": factory, "trust": root, "runtime": "torchscript", "keep_warm_s": 0.5},
        "rollout": {"source": [{"alias": "usb", "directory": usb}]},
        "state": {"directory": directory / "state"},
    }
    with ground(directory, units, rate_hz, merged(settings, changes or {}), started=False) as here:
        here.daemon.extra.update(environment)
        if started:
            here.daemon.start()
            here.daemon.wait_ready()
        yield Rolling(here, usb, root)
