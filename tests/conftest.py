"""Fixtures that several folders share."""

from __future__ import annotations

import os
from pathlib import Path

# Before any test imports a library that could look for the network.
os.environ.setdefault("HF_HUB_OFFLINE", "1")
# Before torch is imported, as the command does, so that tests get on beside other programs.
os.environ.setdefault("GOMP_SPINCOUNT", "3000")

import pytest
from hypothesis import settings

import simulated_device


def pytest_configure(config: pytest.Config) -> None:
    """Tests that are not of CUDA are of the CPU, also where there is a GPU that `auto` would take. Torch takes the
    simulated device for the machine's accelerator, so that its tests have a process of their own."""
    asked = str(config.getoption("markexpr"))
    if "cuda" not in asked.replace("not cuda", ""):
        os.environ["CUDA_VISIBLE_DEVICES"] = ""
    if asked == "simulated":
        simulated_device.register()


# No deadline for an example: tests may run beside other work. The same examples every time.
settings.register_profile("rewardsds", deadline=None, max_examples=50, derandomize=True)
settings.load_profile("rewardsds")


@pytest.fixture(
    params=[pytest.param(name, marks=getattr(pytest.mark, name)) for name in ("simulated", "cuda")]
)
def device(request: pytest.FixtureRequest) -> str:
    """One that is not the CPU: with `pytest -m simulated` one that refuses mixed tensors, with `-m cuda` a GPU."""
    if request.param == simulated_device.DEVICE and not simulated_device.is_registered():
        pytest.skip("has a process of its own: pytest -m simulated")
    return request.param


@pytest.fixture(scope="session")
def tiny_prior_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random multi-view prior in the diffusers layout (16×16 pictures, 4×8×8 latents)."""
    import tiny_models

    return tiny_models.save_prior(tmp_path_factory.mktemp("models") / "prior")


@pytest.fixture(scope="session")
def tiny_single_view_prior_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same without camera embedding: a plain text-to-image prior."""
    import tiny_models

    return tiny_models.save_prior(tmp_path_factory.mktemp("models") / "prior2d", multiview=False)


@pytest.fixture(scope="session")
def tiny_clip_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random CLIPModel with tokenizer (16×16 pictures)."""
    import tiny_models

    return tiny_models.save_clip(tmp_path_factory.mktemp("models") / "clip")
