"""What saves memory changes no prediction."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from rewardsds.memory import PeakMemory
from rewardsds.priors.base import Prediction
from rewardsds.priors.latent import LatentPrior
from rewardsds.priors.load import load_prior

NOISY = torch.randn(3, 2, 4, 4, 8, 8, generator=torch.Generator().manual_seed(0))
POSES = torch.eye(4).expand(2, 4, 4, 4)


@torch.no_grad()
def predicted(prior: LatentPrior) -> Prediction:
    condition = prior.condition(["a red car", "the apple"], "black", POSES if prior.views > 1 else None)
    return prior.predict(NOISY, torch.tensor([200, 700]), condition)


def assert_same(one: Prediction, other: Prediction) -> None:
    assert one.unconditional is not None
    assert other.unconditional is not None
    torch.testing.assert_close(one.conditional, other.conditional, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(one.unconditional, other.unconditional, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("size", [1, 4, 10, 1000, "auto"])
@pytest.mark.parametrize("multiview", [True, False])
def test_predictions_do_not_depend_on_the_chunk(
    tiny_prior_folder: Path, tiny_single_view_prior_folder: Path, size: Any, multiview: bool
):
    prior = load_prior(tiny_prior_folder if multiview else tiny_single_view_prior_folder, "cpu")
    whole, pictures = predicted(prior), prior.decode(NOISY)
    before = prior.network_evaluations
    prior.in_chunks(size)
    calls: list[int] = []
    prior.network.register_forward_pre_hook(lambda module, given: calls.append(len(given[0])))
    assert_same(predicted(prior), whole)
    torch.testing.assert_close(prior.decode(NOISY), pictures)
    assert prior.network_evaluations == 2 * before
    if size != "auto":
        assert max(calls) <= max(size, 4 if multiview else 1)
        assert sum(calls) == 48


def test_chunks_carry_the_gradient_of_encode(tiny_prior_folder: Path):
    prior = load_prior(tiny_prior_folder, "cpu")
    images = torch.rand(2, 4, 3, 16, 16, requires_grad=True, generator=torch.Generator().manual_seed(0))
    gradients = []
    for size in (None, 3):
        prior.in_chunks(size)
        gradients.append(torch.autograd.grad(prior.encode(images).square().sum(), images)[0])
    torch.testing.assert_close(*gradients)


@pytest.mark.parametrize("way", ["encode", "decode"])
def test_chunks_bound_what_the_backward_pass_holds(tiny_prior_folder: Path, way: str):
    """Of 16 pictures, or latents, one by one: what they are made of and become takes some room whatever the chunk."""
    prior = load_prior(tiny_prior_folder, "cpu")
    generator = torch.Generator().manual_seed(0)
    shape = (3, 16, 16) if way == "encode" else prior.latent_shape
    given = torch.rand((16, *shape), requires_grad=True, generator=generator)
    run = prior.encode if way == "encode" else prior.decode
    held, gradients = [], []
    for size in (None, 1):
        prior.in_chunks(size)
        with PeakMemory() as peak:
            gradients.append(torch.autograd.grad(run(given).square().sum(), given)[0])
        held.append(peak.bytes)
    torch.testing.assert_close(*gradients)
    assert held[1] < 0.5 * held[0]


def test_text_encoders_rest_on_the_cpu(tiny_prior_folder: Path):
    prior = load_prior(tiny_prior_folder, "cpu")
    whole = predicted(prior)
    rested = load_prior(tiny_prior_folder, "cpu", offload=True)
    moves: list[str] = []
    encoder = rested.text_encoders[0]
    moved = encoder.to
    encoder.to = lambda device: moves.append(str(device)) or moved(device)
    assert_same(predicted(rested), whole)
    assert len(moves) == 2 * 3  # there and back for two texts and the negative one
    predicted(rested)
    assert len(moves) == 2 * 3  # they are known


def test_a_text_encoder_that_fails_goes_back(tiny_prior_folder: Path):
    prior = load_prior(tiny_prior_folder, "cpu", offload=True)
    moves: list[str] = []
    encoder = prior.text_encoders[0]
    encoder.to = lambda device: moves.append(str(device))

    def fail(*given: Any, **named: Any) -> None:
        raise torch.OutOfMemoryError("no room")

    encoder.forward = fail
    with pytest.raises(torch.OutOfMemoryError):
        prior.condition(["a red car"])
    assert len(moves) == 2


def test_sliced_attention_is_attention(tiny_single_view_prior_folder: Path, tiny_prior_folder: Path):
    prior = load_prior(tiny_single_view_prior_folder, "cpu")
    whole = predicted(prior)
    prior.slice_attention()
    assert any("Sliced" in type(one).__name__ for one in prior.network.attn_processors.values())
    assert_same(predicted(prior), whole)
    with pytest.raises(ValueError, match=r"multi-view network.*lower the chunk"):
        load_prior(tiny_prior_folder, "cpu").slice_attention()


def test_tiles_are_used_for_large_pictures(tmp_path: Path):
    import tiny_pipelines

    prior = load_prior(tiny_pipelines.save_sdxl(tmp_path / "sdxl"), "cpu")
    latents = torch.randn(1, 1, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    whole = prior.decode(latents)
    prior.tile_autoencoder()
    torch.testing.assert_close(prior.decode(latents), whole)  # not larger than a tile
    prior.vae.tile_latent_min_size = 4
    prior.vae.tile_sample_min_size = 8
    tiled = prior.decode(latents)
    assert tiled.shape == whole.shape
    assert not torch.equal(tiled, whole)


@pytest.mark.parametrize("way", ["encode", "decode"])
def test_tiles_bound_what_the_backward_pass_holds(tmp_path: Path, way: str):
    """Tiles overlap, so that all of them together hold more than the whole picture."""
    import tiny_pipelines

    prior = load_prior(tiny_pipelines.save_sdxl(tmp_path / "sdxl"), "cpu", image_size=128)
    prior.vae.tile_sample_min_size, prior.vae.tile_latent_min_size = 32, 16
    shape = (1, 1, 3, 128, 128) if way == "encode" else (1, 1, *prior.latent_shape)
    given = torch.rand(shape, requires_grad=True, generator=torch.Generator().manual_seed(0))
    run = prior.encode if way == "encode" else prior.decode
    held, gradients = [], []
    for tile in (lambda: None, prior.vae.enable_tiling, prior.tile_autoencoder):
        tile()
        with PeakMemory() as peak:
            gradients.append(torch.autograd.grad(run(given).square().sum(), given)[0])
        held.append(peak.bytes)
    whole, kept, again = held
    assert kept > whole
    assert again < 0.4 * whole
    torch.testing.assert_close(gradients[2], gradients[1])


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_close(tiny_prior_folder: Path, dtype: torch.dtype):
    whole = predicted(load_prior(tiny_prior_folder, "cpu"))
    half = predicted(load_prior(tiny_prior_folder, "cpu", dtype))
    assert half.conditional.dtype == torch.float32
    error = (half.conditional - whole.conditional).norm() / whole.conditional.norm()
    assert 0 < float(error) < 0.05


@pytest.mark.slow  # the compiler takes a minute
def test_the_compiled_network_predicts_the_same(tiny_single_view_prior_folder: Path):
    prior = load_prior(tiny_single_view_prior_folder, "cpu")
    whole = predicted(prior)
    prior.compile()
    assert_same(predicted(prior), whole)
    assert prior.network._compiled_call_impl is not None
