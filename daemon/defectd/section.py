"""What every table of the TOML is made of."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field
from typing_extensions import Annotated  # in typing from Python 3.9 on

TOPIC_LEVEL = r"^[A-Za-z0-9_-]{1,64}$"
TopicLevel = Annotated[str, Field(pattern=TOPIC_LEVEL)]
Confidence = Annotated[float, Field(ge=0.0, le=1.0)]


class Section(BaseModel):
    """A table of the TOML: frozen, and a key that it does not know is a mistake."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())
