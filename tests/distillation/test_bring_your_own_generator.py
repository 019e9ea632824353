"""The example runs, with random models in place of trained ones, and trains what it says it trains."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest
import torch
from PIL import Image

FILE = Path(__file__).parents[2] / "examples" / "bring_your_own_generator.py"


@pytest.fixture(scope="module")
def example() -> ModuleType:
    specification = importlib.util.spec_from_file_location("bring_your_own_generator", FILE)
    assert specification is not None
    assert specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


def test_the_painter_is_trained(
    example: ModuleType, tiny_prior_folder: Path, tiny_clip_folder: Path, tmp_path: Path
):
    untrained = example.Painter(seed=3)().detach()
    image, guidance = example.paint(
        "a red apple", steps=3, prior=str(tiny_prior_folder), reward=str(tiny_clip_folder), seed=3
    )
    assert image.shape == (3, 64, 64)
    assert (image - untrained).abs().max() > 1e-3
    assert guidance.record.rewards is not None
    assert guidance.record.rewards.shape == (4, 1)
    assert guidance.record.network_evaluations == 8
    again, _ = example.paint(
        "a red apple", steps=3, prior=str(tiny_prior_folder), reward=str(tiny_clip_folder), seed=3
    )
    assert torch.equal(again, image)
    example.save(image, tmp_path / "painted.png")
    with Image.open(tmp_path / "painted.png") as file:
        assert file.size == (64, 64)
