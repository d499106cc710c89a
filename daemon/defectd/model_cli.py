"""`defectd model …` and `defectd bench`: what an engineer does with a model before, and beside, a station."""

from __future__ import annotations

import argparse
import getpass
import json
import os
import sys
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any, Callable

from defectd.errors import ModelError

_PASSPHRASE = "DEFECTD_KEY_PASSPHRASE"  # noqa: S105 - the name of a variable
_MOST_DAYS = 36_500
Commands = Any  # argparse's type for it is private


def add_to(commands: Commands) -> None:
    """Register the commands."""
    model = commands.add_parser("model", help="export, sign, verify and inspect bundles")
    actions = model.add_subparsers(title="actions", required=True, metavar="ACTION")
    _add_export(actions)
    _add_keys(actions)
    _add_signing(actions)
    _add_bench(commands)


def _add(commands: Commands, name: str, command: Callable[[argparse.Namespace], int], about: str) -> Any:
    parser = commands.add_parser(name, help=about, description=about)
    parser.set_defaults(command=command)
    return parser


# -- export ------------------------------------------------------------------------------------------------------


def _add_export(actions: Commands) -> None:
    export = _add(actions, "export", _export, "from a best.pt of Ultralytics to a bundle, compared format by format")
    export.add_argument("checkpoint", type=Path, metavar="BEST.PT", help="a pickle: only export what you trust")
    export.add_argument("--out", type=Path, required=True, metavar="BUNDLE", help="a directory that does not exist yet")
    export.add_argument("--imgsz", type=int, default=None, help="pixels, square (default: as trained)")
    export.add_argument("--data", type=Path, default=None, metavar="DATA.YAML", help="labelled pictures, for the mAP")
    export.add_argument(
        "--golden", type=Path, default=None, metavar="DIR", help="pictures that every device must solve"
    )
    export.add_argument("--name", default=None, help="default: after the checkpoint or its training run")
    export.add_argument("--version", default=None, help="default: the moment")
    export.add_argument("--release-seq", type=int, default=None, help="must grow (default: seconds since 1970)")
    export.add_argument("--expires-days", type=int, default=None, help="no device takes it afterwards (default: never)")
    export.add_argument("--critical-class", action="append", default=[], metavar="CLASS", help="may never be missed")
    export.add_argument("--confidence", type=float, default=0.25, help="threshold of the golden boxes (default: 0.25)")
    export.add_argument("--dense-head", action="store_true", help="of YOLOv10, YOLO26: the head that needs suppression")
    export.add_argument("--allow-drop", action="store_true", help="accept a loss over 0.5 points of mAP; recorded")


def _export(options: argparse.Namespace) -> int:
    try:
        from defectd.export.chain import export
        from defectd.export.options import ExportOptions
    except ImportError as error:
        raise ModelError(
            f"model export needs Ultralytics and ONNX ({error}): pip install 'defectd[export]', on your own machine"
        ) from error
    chosen = ExportOptions(
        imgsz=options.imgsz, data=options.data, golden=options.golden, name=options.name, version=options.version,
        release_seq=options.release_seq, expires_days=options.expires_days, allow_drop=options.allow_drop,
        critical_classes=tuple(options.critical_class), confidence=options.confidence, end2end=not options.dense_head,
    )  # fmt: skip
    export(options.checkpoint, options.out, chosen, lambda line: print(line, flush=True))
    print(f"{options.out}: not signed yet; next: defectd model sign {options.out} --key RELEASE.KEY")
    return 0


# -- keys and the root that says whose they are ------------------------------------------------------------------


def _add_keys(actions: Commands) -> None:
    keygen = _add(actions, "keygen", _keygen, "a new Ed25519 key, under a passphrase; FILE.pub beside it")
    keygen.add_argument("key", type=Path, metavar="FILE")
    keygen.add_argument("--unencrypted", action="store_true", help="no passphrase: for test benches")

    root = _add(actions, "root", _root, "root.json: which keys sign bundles. It goes to every station as model.trust")
    root.add_argument("--out", type=Path, required=True, metavar="ROOT.JSON")
    root.add_argument("--replaces", type=Path, default=None, metavar="OLD.JSON", help="rotate: the root until now")
    for role, about in (("root", "who may change this file"), ("release", "who signs bundles"), ("ops", "commands")):
        root.add_argument(f"--{role}", type=Path, action="append", default=[], metavar="KEY.PUB", help=about)
        root.add_argument(
            f"--{role}-threshold", type=int, default=1, metavar="N", help="so many must sign (default: 1)"
        )
    root.add_argument("--sign", type=Path, action="append", required=True, metavar="KEY", help="private root keys")
    root.add_argument("--expires-days", type=int, default=None, help="default: never")


def _keygen(options: argparse.Namespace) -> int:
    from defectd.models.keys import keygen

    passphrase = None if options.unencrypted else _newpassphrase_for()
    keyid = keygen(options.key, passphrase, unencrypted=options.unencrypted)
    print(f"{options.key} and {options.key}.pub: key {keyid[:12]}; keep the first one off every station")
    return 0


def _root(options: argparse.Namespace) -> int:
    from defectd.models.signing import RoleKeys, Signer, make_root, rotate_root

    roles: Any = {
        role: RoleKeys(getattr(options, role), getattr(options, f"{role}_threshold"))
        for role in ("root", "release", "ops")
        if getattr(options, role)
    }
    expires = _in_days(options.expires_days)
    signers = [Signer(key, passphrase_for(key)) for key in options.sign]
    if options.replaces is None:
        missing = make_root(options.out, roles, expires=expires, signers=signers)
    else:
        missing = rotate_root(options.replaces, options.out, roles, expires=expires, signers=signers)
    return _tell_missing(options.out, missing)


# -- signatures --------------------------------------------------------------------------------------------------


def _add_signing(actions: Commands) -> None:
    sign = _add(actions, "sign", _sign, "add your signature to a bundle, or to a root.json")
    sign.add_argument("target", type=Path, metavar="BUNDLE|ROOT.JSON")
    sign.add_argument("--key", type=Path, default=None, help="your private key")
    sign.add_argument("--replaces", type=Path, default=None, metavar="OLD.JSON", help="for a root: the one until now")
    sign.add_argument("--public", type=Path, default=None, metavar="KEY.PUB", help="with --signature: whose it is")
    sign.add_argument("--signature", type=Path, default=None, metavar="FILE", help="64 bytes that an HSM or KMS made")

    message = _add(actions, "message", _message, "the bytes that a key in an HSM or KMS must sign (plain Ed25519)")
    message.add_argument("target", type=Path, metavar="BUNDLE|ROOT.JSON")
    message.add_argument("--out", type=Path, required=True, metavar="FILE")

    verify = _add(actions, "verify", _verify, "every file and signature of a bundle, as a station would")
    verify.add_argument("bundle", type=Path, metavar="BUNDLE")
    verify.add_argument("--root", type=Path, required=True, metavar="ROOT.JSON")

    inspect = _add(actions, "inspect", _inspect, "what is in a bundle; it is not loaded")
    inspect.add_argument("bundle", type=Path, metavar="BUNDLE")
    inspect.add_argument("--root", type=Path, default=None, metavar="ROOT.JSON", help="verify the signatures, too")
    inspect.add_argument("--json", action="store_true", help="for machines")


def _sign(options: argparse.Namespace) -> int:
    from defectd.models.signing import Signer, attach_signature, sign_bundle, sign_root
    from defectd.models.trust import short

    if (options.key is None) == (options.signature is None) or (options.signature is None) != (options.public is None):
        raise ModelError("model sign: expected --key, or --signature with --public")
    if options.key is None:
        keyids = attach_signature(options.target, options.public, _read(options.signature))
    elif options.target.is_dir():
        keyids = sign_bundle(options.target, options.key, passphrase_for(options.key))
    else:
        signer = Signer(options.key, passphrase_for(options.key))
        return _tell_missing(options.target, sign_root(options.target, signer, options.replaces))
    print(f"{options.target}: signed by {', '.join(map(short, keyids))}")
    return 0


def _message(options: argparse.Namespace) -> int:
    from defectd.models.signing import message_to_sign

    _write(options.out, message_to_sign(options.target))
    print(f"{options.out}: sign it, then: defectd model sign {options.target} --public KEY.PUB --signature FILE")
    return 0


def _verify(options: argparse.Namespace) -> int:
    from defectd.models.bundle import open_bundle
    from defectd.models.trust import read_root, short

    bundle = open_bundle(options.bundle, read_root(options.root), now=datetime.now(timezone.utc))
    manifest = bundle.manifest
    print(f"ok: {manifest.name} {manifest.version}, every file as signed by {', '.join(map(short, bundle.signed_by))}")
    return 0


def _inspect(options: argparse.Namespace) -> int:
    from defectd.models.bundle import as_json, describe, open_bundle
    from defectd.models.trust import read_root

    root = None if options.root is None else read_root(options.root)
    now = None if root is None else datetime.now(timezone.utc)
    bundle = open_bundle(options.bundle, root, now=now, allow_unsigned=root is None)
    print(json.dumps(as_json(bundle), indent=2) if options.json else describe(bundle))
    return 0


# -- bench -------------------------------------------------------------------------------------------------------


def _add_bench(commands: Commands) -> None:
    bench = _add(commands, "bench", _bench, "which runtime is fastest on this machine, and still sees the same?")
    bench.add_argument("model", type=Path, metavar="MODEL", help="a bundle, or a .torchscript file")
    bench.add_argument("--out", type=Path, default=None, metavar="DIR", help="write bench.json and bench.html there")
    bench.add_argument("--json", type=Path, default=None, metavar="FILE")
    bench.add_argument("--html", type=Path, default=None, metavar="FILE", help="one page with plots")
    bench.add_argument("--device", choices=("auto", "cuda", "cpu"), default="auto")
    bench.add_argument("--precision", choices=("fp16", "fp32", "int8"), default="fp16")
    bench.add_argument("--runtime", action="append", default=[], help="only this one; may be repeated (default: all)")
    bench.add_argument("--threads", type=int, default=None, help="of a CPU (default: all cores)")
    bench.add_argument("--calls", type=int, default=200, help="inferences per runtime (default: 200)")
    bench.add_argument("--batches", default="1,2,4,8,16,32", help="of the network alone (default: 1,2,4,8,16,32)")
    bench.add_argument("--seconds", type=float, default=900.0, help="at most, per runtime (default: 900)")
    bench.add_argument("--state", type=Path, default=None, metavar="DIR", help="keep what is built and compiled there")
    bench.add_argument("--root", type=Path, default=None, metavar="ROOT.JSON", help="who signs bundles")
    bench.add_argument("--dev", action="store_true", help="run a bundle that nobody vouches for")
    bench.add_argument("--plain", action="store_true", help="lines instead of a live view")


def _bench(options: argparse.Namespace) -> int:
    from defectd.modelbench import Options, run
    from defectd.models.trust import read_root

    try:
        batches = tuple(int(batch) for batch in options.batches.split(",") if batch)
    except ValueError as error:
        raise ModelError(f"--batches: expected numbers like 1,2,4; got {options.batches!r}") from error
    chosen = Options(
        json=options.json, html=options.html, device=options.device, precision=options.precision,
        runtimes=tuple(options.runtime), threads=options.threads, calls=options.calls, batches=batches,
        seconds=options.seconds, state=options.state, root=None if options.root is None else read_root(options.root),
        allow_unsigned=options.dev, plain=options.plain,
    )  # fmt: skip
    return run(options.model, options.out, chosen, lambda line: print(line, file=sys.stderr, flush=True))


# -- what they share ---------------------------------------------------------------------------------------------


def _tell_missing(path: Path, missing: tuple[str, ...]) -> int:
    if missing:
        print(f"{path}: written, but not complete: {'; '.join(missing)}. They sign it with: defectd model sign {path}")
    else:
        print(f"{path}: complete; stations name it as [model] trust")
    return 0


def _in_days(days: int | None) -> datetime | None:
    if days is None:
        return None
    if not 1 <= days <= _MOST_DAYS:
        raise ModelError(f"--expires-days: expected 1..{_MOST_DAYS}, got {days}")
    return (datetime.now(timezone.utc) + timedelta(days=days)).replace(microsecond=0)


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ModelError(f"{path}: {error.strerror}; expected a file that you may read") from error


def _write(path: Path, data: bytes) -> None:
    try:
        path.write_bytes(data)
    except OSError as error:
        raise ModelError(f"{path}: {error.strerror}; expected a place where you may write") from error


def passphrase_for(key: Path) -> str | None:
    """What opens *key*: from the environment, or asked for. None if it is not encrypted."""
    from defectd.models.keys import is_encrypted

    if not is_encrypted(key):
        return None
    return os.environ.get(_PASSPHRASE) or _ask(f"passphrase of {key}: ")


def _newpassphrase_for() -> str:
    given = os.environ.get(_PASSPHRASE)
    if given:
        return given
    first = _ask("new passphrase: ")
    if _ask("once more: ") != first:
        raise ModelError("the two passphrases differ; nothing was written")
    return first


def _ask(prompt: str) -> str:
    if not sys.stdin.isatty():
        raise ModelError(f"there is no terminal to ask for the passphrase; set {_PASSPHRASE} in the environment")
    return getpass.getpass(prompt)
