"""Checkpoints of a run: safetensors with a checksum, from which it continues to the bit.

One file holds the scene's and the guidance's state, the optimiser's moments and the states of all random generators:

    scene/<key>                         the scene's `state_dict`
    guidance/<key>                      the guidance's `state_dict`: what its loss has learned
    optimizer/<group>/<index>/<key>     what the optimiser keeps of a parameter (Adam: step and two moments)
    generator/<stream>/<item>           state of a CPU generator, uint8

and as metadata (JSON) the number of steps done, the optimiser's scalar options (learning rates change
during a run) and a SHA-256 of all of it. Nothing is pickled.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from rewardsds.errors import CheckpointError
from rewardsds.runs import atomic
from rewardsds.scenes.base import Scene

FORMAT = "rewardsds-run/1"
_NAME = re.compile(r"step_(\d{6,})\.safetensors")


class Stateful(Protocol):
    def state_dict(self) -> Mapping[str, Tensor]: ...

    def load_state_dict(self, state: Mapping[str, Tensor], /) -> None: ...


@dataclass
class Checkpoint:
    """The state between two steps, on the CPU."""

    steps_done: int
    tensors: dict[str, Tensor]
    optimizer_options: dict[str, dict[str, Any]] = field(default_factory=dict)

    def checksum(self) -> str:
        digest = hashlib.sha256(self._header().encode())
        for name in sorted(self.tensors):
            tensor = self.tensors[name]
            digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
            digest.update(tensor.contiguous().reshape(-1).view(torch.uint8).numpy().data)
        return digest.hexdigest()

    def _header(self) -> str:
        return json.dumps(
            {"format": FORMAT, "steps_done": self.steps_done, "optimizer_options": self.optimizer_options},
            sort_keys=True,
        )


def capture(
    steps_done: int,
    scene: Scene,
    guidance: Stateful,
    optimizer: torch.optim.Optimizer,
    generators: Mapping[str, Sequence[torch.Generator]],
) -> Checkpoint:
    """A copy of everything that the next steps depend on."""
    tensors = {f"scene/{key}": _copy(value) for key, value in scene.state_dict().items()}
    tensors |= {f"guidance/{key}": _copy(value) for key, value in guidance.state_dict().items()}
    options: dict[str, dict[str, Any]] = {}
    for group in optimizer.param_groups:
        options[group["name"]] = {
            key: value for key, value in group.items() if key not in ("params", "name") and _is_plain(value)
        }
        for index, parameter in enumerate(group["params"]):
            for key, value in optimizer.state.get(parameter, {}).items():
                tensors[f"optimizer/{group['name']}/{index}/{key}"] = _copy(torch.as_tensor(value))
    for stream, items in generators.items():
        for index, generator in enumerate(items):
            tensors[f"generator/{stream}/{index}"] = generator.get_state()
    # through JSON once, so that a captured state and one read back are equal (tuples become lists)
    return Checkpoint(steps_done, tensors, json.loads(json.dumps(options)))


def restore(
    checkpoint: Checkpoint,
    scene: Scene,
    optimizer: torch.optim.Optimizer,
    generators: Mapping[str, Sequence[torch.Generator]],
) -> None:
    """Puts a captured state back. Make `optimizer` *after* `restore_scene`, from the scene's new groups."""
    for group in optimizer.param_groups:
        name = group["name"]
        for key, value in checkpoint.optimizer_options.get(name, {}).items():
            group[key] = tuple(value) if isinstance(group.get(key), tuple) else value
        for index, parameter in enumerate(group["params"]):
            prefix = f"optimizer/{name}/{index}/"
            state = {
                key.removeprefix(prefix): _place(value, parameter)
                for key, value in checkpoint.tensors.items()
                if key.startswith(prefix)
            }
            if state:
                optimizer.state[parameter] = state
    for stream, items in generators.items():
        for index, generator in enumerate(items):
            generator.set_state(checkpoint.tensors[f"generator/{stream}/{index}"])


def restore_scene(checkpoint: Checkpoint, scene: Scene) -> None:
    scene.load_state_dict(_below("scene/", checkpoint))


def restore_guidance(checkpoint: Checkpoint, guidance: Stateful) -> None:
    guidance.load_state_dict(_below("guidance/", checkpoint))


def _below(prefix: str, checkpoint: Checkpoint) -> dict[str, Tensor]:
    return {
        key.removeprefix(prefix): value for key, value in checkpoint.tensors.items() if key.startswith(prefix)
    }


def save(checkpoint: Checkpoint, folder: Path, keep: int = 2) -> Path:
    """Writes `step_000123.safetensors` and then, only then, removes all but the `keep` newest files."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"step_{checkpoint.steps_done:06d}.safetensors"
    # one entry: safetensors writes several in no particular order, and equal states give equal files
    metadata = {"rewardsds": json.dumps({"checksum": checkpoint.checksum(), "run": checkpoint._header()})}
    atomic.write_bytes(path, safetensors.torch.save(checkpoint.tensors, metadata=metadata))
    for old in available(folder)[keep:]:
        old.unlink(missing_ok=True)
    return path


def load(path: Path) -> Checkpoint:
    """Reads and verifies one file. Raises `CheckpointError` if anything about it is not as it was written."""
    try:
        with safetensors.safe_open(path, framework="pt", device="cpu") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a mapping)
        entry = json.loads(metadata["rewardsds"])
        header = json.loads(entry["run"])
        checkpoint = Checkpoint(int(header["steps_done"]), tensors, header["optimizer_options"])
        stated = entry["checksum"]
    except Exception as error:  # whatever a damaged file makes its readers raise
        reason = " ".join(str(error).split())[:160] or type(error).__name__
        raise CheckpointError(f"{path} is damaged ({reason})") from None
    if header.get("format") != FORMAT:
        raise CheckpointError(f"{path} has format {header.get('format')!r}, expected {FORMAT!r}")
    if checkpoint.checksum() != stated:
        raise CheckpointError(f"{path} is damaged (its checksum does not match)")
    return checkpoint


def available(folder: Path) -> list[Path]:
    """Checkpoint files, newest first."""
    if not folder.is_dir():
        return []
    found = [(int(match[1]), path) for path in folder.iterdir() if (match := _NAME.fullmatch(path.name))]
    return [path for _, path in sorted(found, reverse=True)]


def _copy(tensor: Tensor) -> Tensor:
    return tensor.detach().to("cpu", copy=True).contiguous()


def _place(value: Tensor, parameter: Tensor) -> Tensor:
    # Adam keeps its step counter, a scalar, on the CPU also when the parameters are on a GPU
    return value.clone() if value.ndim == 0 else value.to(parameter.device, copy=True)


def _is_plain(value: Any) -> bool:
    if isinstance(value, tuple | list):
        return all(_is_plain(item) for item in value)
    return value is None or isinstance(value, bool | int | float | str)
