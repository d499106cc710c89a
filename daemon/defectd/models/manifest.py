"""A bundle's manifest: what it holds, where it may run, and what it must answer. Signed; see trust.py.

The bytes are verified before they are parsed here; parsed, they are still checked, because a signer can err, too.
"""

from __future__ import annotations

import json
import re
from datetime import datetime
from typing import Any, Literal, Tuple

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator
from typing_extensions import Annotated

from defectd.errors import ModelError

SCHEMA: Literal["defectd.bundle/1.0"] = "defectd.bundle/1.0"
MANIFEST, ENVELOPE = "manifest.json", "manifest.sig.json"
MAX_MANIFEST_BYTES = 4 * 1024 * 1024
MAX_ARTIFACT_BYTES = 4 * 1024**3
MAX_ARTIFACTS = 1000
ARTIFACT_NAME = r"^[a-z0-9][a-z0-9._-]{0,63}$"

Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Side = Annotated[int, Field(ge=32, le=16_384)]
Share = Annotated[float, Field(ge=0, le=1)]
Role = Literal["torchscript", "exported_program", "onnx", "torch_tensorrt", "golden_image"]
"""What an artifact is for. `torchscript`, `exported_program` (.pt2) and `onnx` are the same network in three formats;
`torch_tensorrt` is TorchScript with TensorRT engines for one kind of device in it."""


class Strict(BaseModel):
    """Frozen; unknown keys are mistakes. A newer schema has another `schema`."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=(), populate_by_name=True)


class Artifact(Strict):
    """One flat file of the bundle."""

    role: Role
    name: str = Field(pattern=ARTIFACT_NAME)
    size: int = Field(gt=0, le=MAX_ARTIFACT_BYTES)
    sha256: Sha256


class Requires(Strict):
    """What a device must have."""

    mem_mb: int = Field(default=0, ge=0, description="free memory while an engine starts")
    disk_mb: int = Field(default=0, ge=0, description="for the bundle and what is built from it")


class Network(Strict):
    """What all formats have in common: one static input (1, 3, height, width), RGB, 0..1."""

    input_hw: tuple[Side, Side]
    stride: int = Field(default=32, ge=1, le=16_384)
    classes: list[Annotated[str, Field(min_length=1, max_length=200)]] = Field(min_length=1, max_length=10_000)
    end2end: bool = Field(description="the head suppresses by itself: (1, N, 6) instead of (1, 4 + classes, anchors)")
    confidence: Share = Field(default=0.25, description="default threshold")
    nms_iou: Share = Field(default=0.7, description="default threshold")


class Exporter(Strict):
    """What made the bundle, and from what."""

    defectd: str
    torch: str
    ultralytics: str
    checkpoint_sha256: Sha256
    checkpoint: str = Field(max_length=200, description="its file name")


Box = Tuple[float, float, float, float, float, int]
"""x1, y1, x2, y2 in pixels of the picture, score, class id."""


class GoldenPicture(Strict):
    """A picture and what the original model finds in it at the network's default thresholds."""

    image: str = Field(pattern=ARTIFACT_NAME, description="an artifact of role golden_image")
    boxes: list[Box] = Field(max_length=300)


class AcceptanceLimits(Strict):
    """When a runtime may serve. Boxes match if they have the same class and overlap by `iou`."""

    recall: Share = Field(default=0.98, description="share of expected boxes found again, at least")
    precision: Share = Field(default=0.98, description="share of found boxes that were expected, at least")
    iou: Share = Field(default=0.8)
    confidence_drift: Share = Field(default=0.05, description="mean difference of matched boxes, at most")
    critical_classes: list[str] = Field(default_factory=list, description="none of their boxes may be missed")
    ignore_below: Share = Field(
        default=0.05, description="boxes so little above the threshold may come and go without being counted"
    )


class Golden(Strict):
    """What a runtime must answer on the device before it serves."""

    pictures: list[GoldenPicture] = Field(default_factory=list, max_length=MAX_ARTIFACTS)
    limits: AcceptanceLimits = Field(default_factory=AcceptanceLimits)


class Parity(Strict):
    """How one format compares with the original on the exporting machine. None: not measured."""

    format: str = Field(description="eager, torchscript, exported_program, onnx, torchscript-fp16, …")
    head_mse: float | None = Field(default=None, description="of the raw head, mean squared")
    head_max: float | None = Field(default=None, description="largest difference of the raw head")
    recall: float | None = Field(default=None, description="of the original's boxes")
    precision: float | None = None
    map50: float | None = None
    map50_95: float | None = None
    allowed_drop: bool = Field(default=False, description="it lost more than 0.5 points, and a person allowed it")


class Manifest(Strict):
    """See the fields. `release_seq` grows with every release of a `name`; `compatible` names kinds of devices."""

    schema_: Literal["defectd.bundle/1.0"] = Field(default=SCHEMA, alias="schema")
    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")
    version: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._+-]{0,63}$")
    release_seq: int = Field(ge=1, le=2**53)
    created: datetime
    expires: datetime | None = None
    min_defectd: str = "0.1.0"
    compatible: list[Annotated[str, Field(pattern=r"^[a-z0-9_.-]*(\*[a-z0-9_.-]*){0,3}$", max_length=64)]] = Field(
        default_factory=lambda: ["*"], min_length=1,
        description="* or any of: cpu, x86_64, aarch64, sm_87 (GPU architecture), l4t-36",
    )  # fmt: skip
    requires: Requires = Field(default_factory=Requires)
    artifacts: list[Artifact] = Field(min_length=1, max_length=MAX_ARTIFACTS)
    network: Network
    exporter: Exporter
    golden: Golden = Field(default_factory=Golden)
    parity: list[Parity] = Field(default_factory=list)

    @field_validator("created", "expires")
    @classmethod
    def _aware(cls, moment: datetime | None) -> datetime | None:
        if moment is not None and moment.tzinfo is None:
            raise ValueError("expected a time with its zone, like 2026-01-31T12:00:00Z")
        return moment

    @model_validator(mode="after")
    def _consistent(self) -> Manifest:
        names = [artifact.name for artifact in self.artifacts]
        if len(set(names)) != len(names) or {MANIFEST, ENVELOPE} & set(names):
            raise ValueError("artifacts: expected names that differ, and none that belongs to the bundle itself")
        roles = [artifact.role for artifact in self.artifacts if artifact.role != "golden_image"]
        if len(set(roles)) != len(roles) or not roles:
            raise ValueError("artifacts: expected the network in at least one format, each format once")
        pictures = {artifact.name for artifact in self.artifacts if artifact.role == "golden_image"}
        if {picture.image for picture in self.golden.pictures} != pictures:
            raise ValueError("golden.pictures: expected exactly the artifacts of role golden_image")
        count = len(self.network.classes)
        if any(not 0 <= box[5] < count for picture in self.golden.pictures for box in picture.boxes):
            raise ValueError(f"golden.pictures.boxes: expected class ids 0..{count - 1}")
        unknown = set(self.golden.limits.critical_classes) - set(self.network.classes)
        if unknown:
            raise ValueError(f"golden.limits.critical_classes: the model has no {', '.join(sorted(unknown))}")
        return self

    def artifact(self, role: Role) -> Artifact | None:
        """The network in that format, if it is there."""
        return next((artifact for artifact in self.artifacts if artifact.role == role), None)

    def to_json(self) -> bytes:
        """As it is written, signed and hashed."""
        fields = self.model_dump(mode="json", by_alias=True)
        return (json.dumps(fields, indent=1, ensure_ascii=False) + "\n").encode()


def parse_manifest(data: bytes, where: str) -> Manifest:
    """*data* as a manifest; *where* is for messages. Raises ModelError, which names the key."""
    if len(data) > MAX_MANIFEST_BYTES:
        raise ModelError(f"{where}: {len(data)} bytes; expected at most {MAX_MANIFEST_BYTES}")
    try:
        fields: dict[str, Any] = json.loads(data)
        json.dumps(fields, ensure_ascii=False).encode()  # half a character, escaped, is no text that could be written
    except (ValueError, RecursionError) as error:
        raise ModelError(f"{where}: is not JSON ({error}); export the bundle again") from error
    if not isinstance(fields, dict) or fields.get("schema") != SCHEMA:
        found = fields.get("schema") if isinstance(fields, dict) else type(fields).__name__
        raise ModelError(
            f"{where}: schema: expected {SCHEMA!r}, got {found!r}; "
            "update defectd, or export the bundle with this version"
        )
    try:
        return Manifest.model_validate(fields)
    except ValidationError as error:
        problems = [f"{_key(one['loc'])}{one['msg']}" for one in error.errors()[:5]]
        raise ModelError(f"{where}: {'; '.join(problems)}; export the bundle again") from error


def _key(location: tuple[Any, ...]) -> str:
    path = ".".join(str(part) for part in location)
    return f"{path}: " if re.search(r"\S", path) else ""
