"""Settings of scenes: what is refused wherever it stands."""

from __future__ import annotations

import math
from typing import Any, get_args, get_origin

import pytest
from pydantic import BaseModel, ValidationError

from rewardsds.scenes.gaussians.settings import GaussianSettings
from rewardsds.scenes.mesh.settings import MeshExportSettings, MeshSettings
from rewardsds.scenes.nerf.settings import NeRFSettings
from rewardsds.scenes.settings import BackgroundSettings, CameraSettings, TurntableSettings

KINDS: list[type[BaseModel]] = [
    BackgroundSettings,
    CameraSettings,
    GaussianSettings,
    MeshExportSettings,
    MeshSettings,
    NeRFSettings,
    TurntableSettings,
]


def holds_numbers(annotation: Any) -> bool:
    return annotation is float or any(holds_numbers(part) for part in get_args(annotation))


def with_in_it(annotation: Any, value: float) -> Any:
    """A value of this type with a number in the place of all its own."""
    if get_origin(annotation) is tuple:
        return (value,) * len(get_args(annotation))
    return value if annotation is float else with_in_it(get_args(annotation)[0], value)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("kind", KINDS)
def test_no_number_is_nan_or_infinite(kind: type[BaseModel], value: float) -> None:
    names = [name for name, field in kind.model_fields.items() if holds_numbers(field.annotation)]
    assert names
    for name in names:
        with pytest.raises(ValidationError, match="finite number"):
            kind(**{name: with_in_it(kind.model_fields[name].annotation, value)})
