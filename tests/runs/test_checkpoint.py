"""Checkpoints hold everything, exactly, also when primitives come and go."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from rewardsds.errors import CheckpointError
from rewardsds.runs import checkpoint


class PointScene:
    """Points that are drawn to the origin; every third step one more is added, with moments of its own."""

    batch = 1

    def __init__(self, count: int = 3) -> None:
        self.points = torch.nn.Parameter(torch.arange(2.0 * count).reshape(count, 2))
        self.flags = torch.tensor([True, False])

    def parameter_groups(self) -> list[dict[str, object]]:
        return [{"params": [self.points], "lr": 0.1, "name": "points", "eps": 1e-15}]

    def state_dict(self) -> dict[str, Tensor]:
        return {"points": self.points.detach(), "flags": self.flags}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        self.points = torch.nn.Parameter(state["points"].clone())
        self.flags = state["flags"].clone()

    def after_step(self, step: int, optimizer: torch.optim.Optimizer, generator: torch.Generator) -> None:
        optimizer.param_groups[0]["lr"] *= 0.9
        if step % 3 == 2:
            new = torch.nn.Parameter(
                torch.cat([self.points.detach(), torch.randn(1, 2, generator=generator)])
            )
            state = optimizer.state.pop(self.points)
            for key in ("exp_avg", "exp_avg_sq"):
                state[key] = torch.cat([state[key], torch.zeros(1, 2)])
            optimizer.state[new] = state
            optimizer.param_groups[0]["params"] = [new]
            self.points = new


class Nothing:
    """A guidance that has nothing to remember."""

    def state_dict(self) -> dict[str, torch.Tensor]:
        return {}

    def load_state_dict(self, state: object) -> None:
        assert state == {}


def advance(scene: PointScene, optimizer: torch.optim.Adam, generator: torch.Generator, steps: range) -> None:
    for step in steps:
        optimizer.zero_grad()
        (scene.points - torch.rand(2, generator=generator)).square().sum().backward()
        optimizer.step()
        scene.after_step(step, optimizer, generator)


def test_going_on_from_a_file_is_exact_while_primitives_are_added(tmp_path: Path) -> None:
    whole, whole_generator = PointScene(), torch.Generator().manual_seed(3)
    optimizer = torch.optim.Adam(whole.parameter_groups())
    advance(whole, optimizer, whole_generator, range(7))
    path = checkpoint.save(
        checkpoint.capture(7, whole, Nothing(), optimizer, {"noise": [whole_generator]}),  # pyright: ignore
        tmp_path,
    )
    advance(whole, optimizer, whole_generator, range(7, 15))

    found = checkpoint.load(path)
    scene, generator = PointScene(1), torch.Generator()
    checkpoint.restore_scene(found, scene)  # pyright: ignore[reportArgumentType]
    optimizer = torch.optim.Adam(scene.parameter_groups())
    checkpoint.restore(found, scene, optimizer, {"noise": [generator]})  # pyright: ignore
    assert optimizer.param_groups[0]["lr"] == pytest.approx(0.1 * 0.9**7)
    assert optimizer.param_groups[0]["eps"] == 1e-15
    assert optimizer.param_groups[0]["betas"] == (0.9, 0.999)
    advance(scene, optimizer, generator, range(7, 15))

    assert torch.equal(scene.points, whole.points)
    assert len(scene.points) == 3 + 5
    assert torch.equal(scene.flags, whole.flags)


def test_only_the_newest_two_are_kept(tmp_path: Path) -> None:
    for steps_done in (1, 20, 300, 4_000_000):
        checkpoint.save(checkpoint.Checkpoint(steps_done, {"scene/x": torch.zeros(1)}), tmp_path)
    assert [path.name for path in checkpoint.available(tmp_path)] == [
        "step_4000000.safetensors",
        "step_000300.safetensors",
    ]
    assert len(list(tmp_path.iterdir())) == 2


def test_the_files_are_plain_safetensors(tmp_path: Path) -> None:
    """An independent reader finds the tensors; no pickle is involved."""
    import safetensors.torch

    tensors = {"scene/x": torch.arange(6).reshape(2, 3), "scene/empty": torch.zeros(0, 3)}
    path = checkpoint.save(checkpoint.Checkpoint(5, tensors), tmp_path)
    found = safetensors.torch.load_file(path)
    assert all(torch.equal(found[name], tensor) for name, tensor in tensors.items())
    assert found.keys() == tensors.keys()
    assert checkpoint.load(path).steps_done == 5


def test_every_byte_matters(tmp_path: Path) -> None:
    """Flip any one bit anywhere in the file: it is refused, or reads back as exactly what was written."""
    tensors = {"scene/x": torch.arange(4.0), "generator/noise/0": torch.arange(3, dtype=torch.uint8)}
    path = checkpoint.save(checkpoint.Checkpoint(5, tensors, {"g": {"lr": 0.1}}), tmp_path)
    data = path.read_bytes()
    accepted = 0
    messages: list[str] = []
    for position in range(len(data)):
        path.write_bytes(data[:position] + bytes([data[position] ^ 4]) + data[position + 1 :])
        try:
            found = checkpoint.load(path)
        except CheckpointError as error:
            messages.append(str(error))
            continue
        accepted += 1
        assert found.steps_done == 5
        assert found.optimizer_options == {"g": {"lr": 0.1}}
        assert found.tensors.keys() == tensors.keys()
        assert all(torch.equal(found.tensors[name], tensor) for name, tensor in tensors.items())
    assert accepted < 0.1 * len(data)
    assert all("\n" not in message and str(path) in message for message in messages)
