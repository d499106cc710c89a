"""A DSSE envelope: exact bytes, what kind of bytes they are, and signatures over both.

Shape and bounds only, no cryptography: trust.py judges what is read here. The encoding that is signed is that of the
DSSE protocol 1.0 (github.com/secure-systems-lab/dsse). An envelope has one form, the one `to_json` gives: any other
byte in it is an error, so that a changed byte is seen even where it would change nothing.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
from dataclasses import dataclass
from typing import Any, NamedTuple

from defectd.errors import ModelError
from defectd.models.manifest import MAX_MANIFEST_BYTES

PAYLOAD_MANIFEST = "application/vnd.defectd.manifest+json"
PAYLOAD_ROOT = "application/vnd.defectd.root+json"
PAYLOAD_COMMAND = "application/vnd.defectd.command+json"
MAX_PAYLOAD_BYTES = {PAYLOAD_MANIFEST: MAX_MANIFEST_BYTES, PAYLOAD_ROOT: 64 * 1024, PAYLOAD_COMMAND: 64 * 1024}
MAX_SIGNATURES = 64
SIGNATURE_BYTES = 64
_BYTES_PER_SIGNATURE = 256  # its JSON takes 192
_MAX_DIGITS = 16  # int() of millions of digits takes minutes before Python 3.11
_KEYID = re.compile(r"[0-9a-f]{64}")


class TrustError(ModelError):
    """Not signed by whom it should be, or too old: get it from where it is signed, and never use it as it is."""


class Signature(NamedTuple):
    """Who says to have signed, and the 64 bytes to prove it."""

    keyid: str
    signature: bytes


@dataclass(frozen=True)
class Envelope:
    """Bytes of one kind, and signatures over `message`; nothing here says that these are good."""

    payload_type: str
    payload: bytes
    signatures: tuple[Signature, ...] = ()

    def message(self) -> bytes:
        """What is signed: DSSE's pre-authentication encoding, which says type and length before the bytes."""
        kind = self.payload_type.encode()
        return b"DSSEv1 %d %s %d %s" % (len(kind), kind, len(self.payload), self.payload)

    def signed(self, keyid: str, signature: bytes) -> Envelope:
        """With one more signature, or with a new one of the same key. Raises TrustError if there are too many."""
        others = tuple(one for one in self.signatures if one.keyid != keyid)
        if len(others) >= MAX_SIGNATURES:
            raise TrustError(f"the envelope has {len(others)} signatures; expected at most {MAX_SIGNATURES}")
        return Envelope(self.payload_type, self.payload, tuple(sorted((*others, Signature(keyid, signature)))))

    def to_json(self) -> bytes:
        """The one form in which it is written and read."""
        fields = {
            "payloadType": self.payload_type,
            "payload": base64.b64encode(self.payload).decode(),
            "signatures": [
                {"keyid": one.keyid, "sig": base64.b64encode(one.signature).decode()} for one in self.signatures
            ],
        }
        return (json.dumps(fields, indent=1) + "\n").encode()


def max_envelope_bytes(payload_type: str) -> int:
    """What an envelope of that kind can have at most: to be asked before it is read."""
    return MAX_PAYLOAD_BYTES[payload_type] * 4 // 3 + MAX_SIGNATURES * _BYTES_PER_SIGNATURE + 1024


def read_envelope(data: bytes, payload_type: str) -> Envelope:
    """*data* as an envelope of that kind; its payload is not looked at. Raises TrustError.

    Size and nesting are judged before the JSON is parsed, the kind before anything is decoded.
    """
    if len(data) > max_envelope_bytes(payload_type):
        raise TrustError(f"the envelope has {len(data)} bytes; expected at most {max_envelope_bytes(payload_type)}")
    if data.count(b"[") != 1 or data.count(b"{") > 1 + MAX_SIGNATURES:  # no string in it may hold a bracket
        raise TrustError(f"is no envelope: expected one list of at most {MAX_SIGNATURES} signatures; sign it again")
    try:
        envelope = _parse(strict_json(data), payload_type)
    except ValueError as error:
        raise TrustError(f"is no envelope ({error}); sign it again") from error
    except (KeyError, TypeError) as error:
        raise TrustError("is no envelope: expected payloadType, payload and signatures; sign it again") from error
    if len(envelope.payload) > MAX_PAYLOAD_BYTES[payload_type]:
        raise TrustError(f"the envelope holds {len(envelope.payload)} bytes, over the limit for {payload_type}")
    if len({one.keyid for one in envelope.signatures}) != len(envelope.signatures):
        raise TrustError("the envelope has two signatures of one key; sign it again")
    if envelope.to_json() != data:
        raise TrustError("the envelope was changed after it was written: its bytes differ from their own meaning")
    return envelope


def strict_json(data: bytes) -> Any:
    """ASCII JSON without doubled keys, fractions and long numbers. Raises ValueError, and nothing else."""
    try:
        return json.loads(
            data.decode("ascii"),
            object_pairs_hook=_unique,
            parse_int=_short_integer,
            parse_float=_no_number,
            parse_constant=_no_number,
        )
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error


def _parse(fields: Any, payload_type: str) -> Envelope:
    kind = fields["payloadType"]
    if kind != payload_type:
        raise TrustError(f"payloadType: expected {payload_type!r}, got {kind!r:.100}: it was signed for something else")
    signatures = []
    for one in fields["signatures"]:
        keyid, signature = one["keyid"], _decode(one["sig"])
        if not _KEYID.fullmatch(keyid) or len(signature) != SIGNATURE_BYTES:
            raise ValueError("signatures: expected key ids of 64 hex digits, signatures of 64 bytes")
        signatures.append(Signature(keyid, signature))
    return Envelope(kind, _decode(fields["payload"]), tuple(signatures))


def _decode(text: str) -> bytes:
    try:
        return base64.b64decode(text.encode("ascii"), validate=True)
    except (AttributeError, binascii.Error) as error:
        raise ValueError("expected base64") from error


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    fields = dict(pairs)
    if len(fields) != len(pairs):
        raise ValueError("a key stands twice in one object")
    return fields


def _short_integer(text: str) -> int:
    if len(text) > _MAX_DIGITS:
        raise ValueError(f"a number of {len(text)} digits")
    return int(text)


def _no_number(text: str) -> None:
    raise ValueError(f"{text[:20]}: expected whole numbers only")
