"""Settings of every run, whatever its task. Light to import: the command reads them before torch."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar, TypeVar

import yaml
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError
from typing_extensions import Self

from rewardsds.errors import SettingsError, describe_validation
from rewardsds.hardware import available_cores


def _checked_device(device: str) -> str:
    if re.fullmatch(r"auto|cpu|cuda(:\d+)?", device) is None:
        raise ValueError("expected auto, cpu, cuda or cuda:N")
    return device


class Settings(BaseModel):
    """A validated, immutable settings group; a wrong value raises `SettingsError` with a one-line message."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    def __init__(self, **values: Any):
        try:
            super().__init__(**values)
        except ValidationError as error:
            raise SettingsError(describe_validation(error, type(self))) from None


class RunSettings(Settings):
    """What the training loop itself reads."""

    task: ClassVar[str]
    """Name of the task, written into `settings.yaml`."""

    seed: int = Field(
        default=0, ge=0, lt=2**53, description="Seed: with the settings it decides the whole run, to the bit."
    )
    steps: int = Field(default=400, ge=1, le=1_000_000, description="Optimisation steps.")
    out: Path | None = Field(
        default=None, description="Run folder. Without it: runs/<task>-<words of the prompt>-<seed>."
    )
    device: Annotated[str, AfterValidator(_checked_device)] = Field(
        default="auto", description="auto, cpu, cuda or cuda:N. auto takes CUDA when it is there."
    )
    threads: int | None = Field(
        default=None,
        ge=1,
        le=1024,
        description="CPU threads; without it all cores. Results depend on it, through the order of sums.",
    )
    checkpoint_every: int = Field(default=50, ge=1, description="Steps between checkpoints.")
    previews_every: int = Field(
        default=50, ge=0, description="Steps between pictures of the state in previews/; 0 for none."
    )
    candidate_previews: int = Field(
        default=6,
        ge=0,
        le=1000,
        description="At how many steps, spread over the run, all candidates are kept as pictures.",
    )

    def resolved(self) -> Self:
        """With the device and the number of threads of this machine filled in, and files where they lie whatever the
        current folder."""
        device = resolved_device(self.device)
        found = {"device": device, "threads": self.threads or available_cores()}
        return _with_whole_paths(self).model_copy(update=found)


def changed(settings: BaseModel) -> list[str]:
    """The names of settings that are not at their defaults; each has one."""
    standard = type(settings)()
    return [
        name for name in type(settings).model_fields if getattr(settings, name) != getattr(standard, name)
    ]


SettingsType = TypeVar("SettingsType", bound=Settings)


def _with_whole_paths(settings: SettingsType) -> SettingsType:
    """Of files that are read, in groups too; `out` is written."""
    found: dict[str, Any] = {}
    for name in type(settings).model_fields:
        value = getattr(settings, name)
        if isinstance(value, Settings):
            found[name] = _with_whole_paths(value)
        elif isinstance(value, Path) and name != "out":
            found[name] = value.expanduser().absolute()
    return settings.model_copy(update=found)


def resolved_device(device: str) -> str:
    """cpu, cuda or cuda:N, for auto what this machine has. Raises SettingsError for others and what is not there."""
    import torch

    try:
        _checked_device(device)
    except ValueError as error:
        raise SettingsError(f"device is {device!r}: {error}") from None
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    if device.startswith("cuda"):
        count = torch.cuda.device_count()
        if count == 0:
            raise SettingsError(f"device is {device!r}, but torch sees no CUDA GPU: cpu and auto need none")
        if ":" in device and int(device.split(":")[1]) >= count:
            raise SettingsError(f"device is {device!r}, but there are {count} CUDA GPUs, counted from 0")
        # cuBLAS reads it with the first product of matrices, long before a run's first step
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    return device


def to_yaml(settings: RunSettings) -> str:
    """The settings as YAML, which `from_mapping` takes back. `out` is left out: it is where the file lies."""
    values = {"task": settings.task, **settings.model_dump(mode="json", exclude={"out"})}
    return yaml.safe_dump(values, sort_keys=False, allow_unicode=True, default_flow_style=None, width=100)


def read_yaml(path: Path) -> dict[str, Any]:
    """A settings file as a mapping. Raises `SettingsError` when it cannot be read."""
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise SettingsError(f"no settings file {path}") from None
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        reason = " ".join(str(error).split())[:200]
        raise SettingsError(f"cannot read the settings in {path}: {reason}") from None
    if not isinstance(values, dict) or not all(isinstance(key, str) for key in values):
        raise SettingsError(f"{path} holds no settings: expected lines like `steps: 400`")
    return values


def over(values: Mapping[str, Any], own: Mapping[str, Any]) -> dict[str, Any]:
    """`own` in place of `values`; of a group of settings only what is named."""
    merged = dict(values)
    for name, value in own.items():
        below = merged.get(name)
        if isinstance(value, Mapping) and isinstance(below, Mapping):
            merged[name] = over(below, value)
        else:
            merged[name] = value
    return merged
