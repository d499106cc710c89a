"""From best.pt to a signed bundle, by the commands that an engineer types."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from acceptance.loop_images import deeppcb
from support.proving import Proof, Setting, Short, Skipped
from support.station import environment

_EXPORT_S = 1500
_HEAD_MSE, _MAP_DROP = 1e-5, 0.005
_NETWORKS = ("yolov8n", "yolo11n", "yolov10n", "yolo26n")
_FROM_YAML = """
import sys
from pathlib import Path
from support.checkpoints import save
save(Path(sys.argv[2]), sys.argv[1])
"""


def exporter() -> str:
    """An interpreter that has Ultralytics and ONNX. Raises Skipped."""
    python = os.environ.get("DEFECTD_PEER_PYTHON")
    if not python:
        raise Skipped("set DEFECTD_PEER_PYTHON to an interpreter that has defectd[export]")
    return python


def command(*arguments: str | Path, python: str = sys.executable, **extra: str) -> subprocess.CompletedProcess[str]:
    """`defectd` with *arguments*, run to its end."""
    return subprocess.run(
        [python, "-m", "defectd", *map(str, arguments)],
        capture_output=True, text=True, timeout=_EXPORT_S, check=False, env=environment(**extra),
    )  # fmt: skip


def succeeded(done: subprocess.CompletedProcess[str]) -> str:
    """What it printed. Raises Short."""
    if done.returncode != 0:
        raise Short(f"{' '.join(map(str, done.args[3:5]))}: exit {done.returncode}: {done.stderr.strip()[-400:]}")
    return done.stdout


def deeppcb_bundle(setting: Setting) -> Path:
    """The bundle of DeepPCB's best.pt, signed; made once for all items. Raises Skipped, Short."""
    bundle = setting.directory.parent / "shared" / "deeppcb"
    if not bundle.exists():
        _export(deeppcb() / "best.pt", bundle, "--data", deeppcb() / "data.yaml")
        succeeded(command("model", "sign", bundle, "--key", keys(setting) / "release.key"))
    return bundle


def keys(setting: Setting) -> Path:
    """release.key, root.key and the root.json of both; made once for all items."""
    directory = setting.directory.parent / "shared" / "keys"
    if not directory.exists():
        directory.mkdir(parents=True)
        for role in ("root", "release"):
            succeeded(command("model", "keygen", directory / f"{role}.key", "--unencrypted"))
        public, private = directory / "root.key.pub", directory / "root.key"
        roles = ["--root", public, "--release", directory / "release.key.pub"]
        succeeded(command("model", "root", *roles, "--sign", private, "--out", directory / "root.json"))
    return directory


def _export(checkpoint: Path, out: Path, *arguments: str | Path) -> str:
    out.parent.mkdir(parents=True, exist_ok=True)
    return succeeded(command("model", "export", checkpoint, "--out", out, *arguments, python=exporter()))


def _deeppcb(setting: Setting) -> str:
    """Every format within its limits on the labelled images."""
    rows = _parity(deeppcb_bundle(setting))
    eager = rows["eager"]
    figures = []
    for name, row in rows.items():
        if row["head_mse"] is not None and "fp16" not in name and row["head_mse"] > _HEAD_MSE:
            raise Short(f"{name}: MSE of the raw head {row['head_mse']:.1e}, at most {_HEAD_MSE}")
        for measure in ("map50", "map50_95"):
            if row[measure] is None or eager[measure] - row[measure] > _MAP_DROP:
                raise Short(f"{name}: {measure} {row[measure]}, the original has {eager[measure]}")
        mse = "" if row["head_mse"] is None else f", MSE {row['head_mse']:.0e}"
        figures.append(f"{name} mAP50 {row['map50']:.4f} mAP50-95 {row['map50_95']:.4f}{mse}")
    return "; ".join(figures)


def _parity(bundle: Path) -> dict[str, dict[str, Any]]:
    manifest = json.loads((bundle / "manifest.json").read_text())
    return {row["format"]: row for row in manifest["parity"]}


def _flipped(setting: Setting) -> str:
    """`verify` is content with the bundle, and with nothing else."""
    root, bundle = keys(setting) / "root.json", deeppcb_bundle(setting)
    succeeded(command("model", "verify", bundle, "--root", root))
    copy, tried = setting.directory / "copy", 0
    shutil.copytree(bundle, copy)
    for path in sorted(copy.iterdir()):
        original = path.read_bytes()
        for position in (0, len(original) // 2, len(original) - 1):
            changed = bytearray(original)
            changed[position] ^= 1
            path.write_bytes(changed)
            done = command("model", "verify", copy, "--root", root)
            tried += 1
            if done.returncode == 0 or "Traceback" in done.stderr:
                raise Short(f"{path.name}, byte {position}: exit {done.returncode}: {done.stderr[-300:]}")
        path.write_bytes(original)
    succeeded(command("model", "verify", copy, "--root", root))
    return f"verify passes; {tried} flipped bytes in {len(list(copy.iterdir()))} files: each refused"


def _private(setting: Setting) -> str:
    """No file of the bundle tells where it was made."""
    bundle, told = deeppcb_bundle(setting), []
    secrets = {str(Path.home()), str(deeppcb()), str(setting.directory.parent), str(Path(exporter()).parents[1])}
    for path in bundle.iterdir():
        data = _contents(path)
        told += [f"{path.name} has {secret!r}" for secret in secrets if secret != "/" and secret.encode() in data]
    if told:
        raise Short("; ".join(told))
    return f"{len(list(bundle.iterdir()))} files, archives opened: no path of this machine"


def _contents(path: Path) -> bytes:
    import zipfile

    if not zipfile.is_zipfile(path):
        return path.read_bytes()
    with zipfile.ZipFile(path) as archive:
        return b"\n".join([path.read_bytes(), *(archive.read(name) for name in archive.namelist())])


def network_bundle(setting: Setting, network: str) -> Path:
    """An untrained network of Ultralytics' own description, exported; made once for all items."""
    bundle = setting.directory.parent / "shared" / network
    if not bundle.exists():
        checkpoint = bundle.with_suffix(".pt")
        checkpoint.parent.mkdir(parents=True, exist_ok=True)
        done = subprocess.run(
            [exporter(), "-c", _FROM_YAML, f"{network}.yaml", str(checkpoint)],
            capture_output=True, text=True, timeout=300, check=False, env=environment(),
        )  # fmt: skip
        if done.returncode != 0:
            raise Short(f"{network}: {done.stderr[-300:]}")
        _export(checkpoint, bundle, "--imgsz", "320")
    return bundle


def _network(network: str) -> Proof:
    def prove(setting: Setting) -> str:
        rows = _parity(network_bundle(setting, network))
        worst = max(row["head_mse"] or 0 for name, row in rows.items() if "fp16" not in name)
        if worst > _HEAD_MSE:
            raise Short(f"MSE of the raw head {worst:.1e}, at most {_HEAD_MSE}")
        return f"{', '.join(rows)}; worst MSE of the raw head {worst:.0e}"

    return Proof(f"export.{network}", f"{network} from Ultralytics' YAML: every format agrees", prove)


EXPORT = (
    Proof("export.deeppcb", "best.pt: every format within its limits on labelled pictures", _deeppcb),
    Proof("export.flipped-byte", "verify passes; one flipped byte anywhere fails", _flipped),
    Proof("export.no-paths", "no artifact carries a path of the exporting machine", _private),
    *map(_network, _NETWORKS),
)
