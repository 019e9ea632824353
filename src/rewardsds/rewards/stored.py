"""The small JSON files beside a reward's weights."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from rewardsds.errors import describe_validation

Positive = Annotated[float, Field(gt=0)]
Count = Annotated[int, Field(ge=1)]
Channels = tuple[float, float, float]
PositiveChannels = tuple[Positive, Positive, Positive]


class FileModel(BaseModel):
    """What is read of a file; what else it says is left alone."""

    model_config = ConfigDict(frozen=True, strict=True, extra="ignore", allow_inf_nan=False)


Read = TypeVar("Read", bound=FileModel)


def read_model(path: Path, kind: type[Read]) -> Read:
    """Raises ValueError in one line for a file that says something else, JSONDecodeError or UnicodeDecodeError for a
    damaged one."""
    text = path.read_text(encoding="utf-8")
    content = json.loads(text)
    if not isinstance(content, dict):
        raise ValueError(f"{path.absolute()} holds a {type(content).__name__}: expected names with values")
    try:
        return kind.model_validate_json(text)
    except ValidationError as error:
        raise ValueError(f"{path.absolute()}: {describe_validation(error, kind)}") from None
