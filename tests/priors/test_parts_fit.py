"""Parts that were not made for each other, or not for making pictures from text alone, are refused at loading."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from diffusers.schedulers.scheduling_dpmsolver_multistep import DPMSolverMultistepScheduler
from diffusers.schedulers.scheduling_edm_dpmsolver_multistep import EDMDPMSolverMultistepScheduler
from diffusers.schedulers.scheduling_edm_euler import EDMEulerScheduler
from diffusers.schedulers.scheduling_euler_discrete import EulerDiscreteScheduler
from diffusers.schedulers.scheduling_flow_match_euler_discrete import FlowMatchEulerDiscreteScheduler
from diffusers.schedulers.scheduling_lcm import LCMScheduler
from diffusers.schedulers.scheduling_pndm import PNDMScheduler
from diffusers.schedulers.scheduling_unipc_multistep import UniPCMultistepScheduler

import tiny_models
import tiny_pipelines
from rewardsds.errors import RewardsdsError
from rewardsds.models.check import check
from rewardsds.priors.load import load_prior

BETAS: dict[str, Any] = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    at = tmp_path_factory.mktemp("whole")
    return {
        "sd": tiny_models.save_prior(at / "sd", multiview=False),
        "sdxl": tiny_pipelines.save_sdxl(at / "sdxl"),
        "sd3": tiny_pipelines.save_sd3(at / "sd3"),
        "flux": tiny_pipelines.save_flux(at / "flux"),
    }


@pytest.fixture
def copy(folders: dict[str, Path], tmp_path: Path) -> Any:
    def copied(name: str) -> Path:
        return Path(shutil.copytree(folders[name], tmp_path / name))

    return copied


def refused(folder: Path, told: str, **options: Any) -> None:
    with pytest.raises(ValueError, match=told) as error:
        load_prior(folder, "cpu", **options)
    assert "\n" not in str(error.value)
    if not options:
        with pytest.raises(RewardsdsError, match=told):
            check(folder)


def changed(file: Path, **values: Any) -> None:
    file.write_text(json.dumps({**json.loads(file.read_text()), **values}))


def write_unet(folder: Path, **conditions: Any) -> None:
    """A random one, configured as the one that is there but for what is given."""
    config: Any = UNet2DConditionModel.load_config(folder / "unet")
    unet: Any = UNet2DConditionModel.from_config({**config, **conditions})
    unet.save_pretrained(folder / "unet")


@pytest.mark.parametrize(
    "scheduler",
    [
        FlowMatchEulerDiscreteScheduler(),
        EDMDPMSolverMultistepScheduler(),
        EDMEulerScheduler(),
        DPMSolverMultistepScheduler(use_flow_sigmas=True, prediction_type="flow_prediction"),
        EulerDiscreteScheduler(timestep_type="continuous", prediction_type="v_prediction"),
    ],
)
@pytest.mark.parametrize("name", ["sd", "sdxl"])
def test_schedules_of_another_kind_are_refused(copy: Any, name: str, scheduler: Any):
    folder = copy(name)
    scheduler.save_pretrained(folder / "scheduler")
    refused(folder, f"scheduler is a {type(scheduler).__name__}, .* expected one with beta_schedule")


@pytest.mark.parametrize("name", ["sd", "sdxl"])
def test_an_empty_schedule_is_refused_and_not_made_up(copy: Any, name: str):
    folder = copy(name)
    (folder / "scheduler" / "scheduler_config.json").write_text("{}")
    refused(folder, "does not say beta_schedule, beta_start, beta_end")


@pytest.mark.parametrize(
    "scheduler",
    [
        PNDMScheduler(**BETAS),
        LCMScheduler(**BETAS),
        UniPCMultistepScheduler(**BETAS),
        EulerDiscreteScheduler(**BETAS),
    ],
)
def test_any_sampler_of_the_same_noise_is_the_same_prior(folders: dict[str, Path], copy: Any, scheduler: Any):
    folder = copy("sd")
    scheduler.save_pretrained(folder / "scheduler")
    config = folder / "scheduler" / "scheduler_config.json"
    own = json.loads(config.read_text())
    own.pop("prediction_type", None)  # as in Stable Diffusion 1's: noise
    config.write_text(json.dumps(own))
    found, expected = load_prior(folder, "cpu"), load_prior(folders["sd"], "cpu")
    assert torch.equal(found.alphas_cumprod, expected.alphas_cumprod)
    assert found.prediction_type == "epsilon"


@pytest.mark.parametrize("name", ["sd3", "flux"])
def test_a_flow_needs_a_flows_schedule(folders: dict[str, Path], copy: Any, name: str):
    folder = copy(name)
    EulerDiscreteScheduler(**BETAS).save_pretrained(folder / "scheduler")
    refused(folder, "scheduler is a EulerDiscreteScheduler, which is none of a flow", image_size=16)
    changed(
        folder / "scheduler" / "scheduler_config.json",
        _class_name="DPMSolverMultistepScheduler",
        use_flow_sigmas=True,
        flow_shift=3.0,
    )
    other = load_prior(folder, "cpu", image_size=16)
    if name == "sd3":  # the same shift
        expected = load_prior(folders[name], "cpu", image_size=16)
        torch.testing.assert_close(other.alphas_cumprod, expected.alphas_cumprod)


@pytest.mark.parametrize(
    "conditions, told",
    [
        ({"class_embed_type": "timestep"}, "told classes .class_embed_type is timestep."),
        ({"num_class_embeds": 10}, "told classes .num_class_embeds is 10."),
        (
            {"class_embed_type": "projection", "projection_class_embeddings_input_dim": 12},
            "cameras have 12 numbers, MVDream's have 16",
        ),
        (
            {
                "addition_embed_type": "text_time",
                "addition_time_embed_dim": 8,
                "projection_class_embeddings_input_dim": 80,
            },
            "told 80 numbers .addition_embed_type is text_time.",
        ),
        (
            {"encoder_hid_dim": 24, "encoder_hid_dim_type": "text_proj"},
            "told pictures, or texts that are bro",
        ),
        ({"time_cond_proj_dim": 16}, "scale of guidance, as consistency models"),
    ],
)
def test_networks_that_are_told_something_else_are_refused(copy: Any, conditions: dict[str, Any], told: str):
    folder = copy("sd")
    write_unet(folder, **conditions)
    refused(folder, told)


def test_xls_network_is_told_its_sizes(copy: Any):
    folder = copy("sdxl")
    write_unet(folder, projection_class_embeddings_input_dim=32 + 5 * 8)  # as the refiner's
    refused(folder, "told 72 numbers besides the text, .* gives 80: it is another model")


def test_latents_with_means_of_their_own_are_refused(copy: Any):
    folder = copy("sdxl")
    changed(folder / "vae" / "config.json", latents_mean=[0.1] * 4, latents_std=[2.0] * 4)
    refused(folder, "means and deviations of its own")


@pytest.mark.parametrize("name", ["sd", "sdxl", "sd3", "flux"])
def test_a_tokenizer_of_another_model_is_refused(copy: Any, name: str):
    folder = copy(name)
    part = "tokenizer" if name == "sd" else "tokenizer_2"
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder / part)
    tokenizer.add_tokens([f"<new{index}>" for index in range(90)])
    tokenizer.save_pretrained(folder / part)
    refused(
        folder, r"tokenizer has \d+ tokens, its \w+ knows \d+", **({} if name == "sd" else {"image_size": 16})
    )


@pytest.mark.parametrize("name, part, own", [("sd3", "text_encoder_2", 56), ("flux", "text_encoder", 24)])
def test_summaries_have_the_width_that_the_network_reads(copy: Any, name: str, part: str, own: int):
    folder = copy(name)
    with torch.random.fork_rng(devices=[]):
        from transformers import CLIPTextModel, CLIPTextModelWithProjection

        kind = CLIPTextModelWithProjection if name == "sd3" else CLIPTextModel
        kind(tiny_pipelines.clip_config(16)).save_pretrained(folder / part)
    refused(folder, rf"reads summaries of width {own}, its text encoders write \d+", image_size=16)


def test_sd3_has_positions_for_so_many_pixels(copy: Any):
    """8 positions of patches of 2 cells of 2 pixels."""
    folder = copy("sd3")
    assert load_prior(folder, "cpu", image_size=32).image_size == 32
    refused(folder, "at most 32 pixels, for which it has positions: got 64", image_size=64)


@pytest.mark.parametrize(
    "missing, there", [("tokenizer_3", "text_encoder_3"), ("text_encoder_3", "tokenizer_3")]
)
def test_t5_comes_with_its_tokenizer_or_not_at_all(copy: Any, missing: str, there: str):
    folder = copy("sd3")
    shutil.rmtree(folder / missing)
    refused(folder, f"has {there} and lacks {missing}: give both, or neither")
    shutil.rmtree(folder / there)
    prior = load_prior(folder, "cpu", image_size=16)
    assert len(prior.text_encoders) == 2


def test_a_tokenizer_need_not_say_how_much_its_text_encoder_reads(folders: dict[str, Path], copy: Any):
    folder = copy("sdxl")
    for part in ("tokenizer", "tokenizer_2"):
        file = folder / part / "tokenizer_config.json"
        config = json.loads(file.read_text())
        config.pop("model_max_length")
        file.write_text(json.dumps(config))
    found, expected = (load_prior(one, "cpu").condition(["a cat"]) for one in (folder, folders["sdxl"]))
    assert torch.equal(found.embeddings, expected.embeddings)


@pytest.mark.parametrize("name, room", [("sdxl", 16), ("sd3", 256), ("flux", 512)])
def test_what_no_text_encoder_reads_to_the_end_is_told_once(
    folders: dict[str, Path],
    caplog: pytest.LogCaptureFixture,
    recwarn: pytest.WarningsRecorder,
    name: str,
    room: int,
):
    """CLIP's text encoders here read 16 tokens; T5 is given more, and then the end is seen."""
    prior = load_prior(folders[name], "cpu", image_size=16)
    prior.condition(["a b c d e f g h i j k l m n o p q r s"])
    said = [str(one.message) for one in recwarn if "its end is not seen" in str(one.message)]
    assert len(said) == (1 if name == "sdxl" else 0)
    prior.condition(["a b " * room])
    said = [str(one.message) for one in recwarn if f"and the prior reads {room}" in str(one.message)]
    assert len(said) == (2 if name == "sdxl" else 1)
    assert not any("truncated" in one.message for one in caplog.records)


def test_views_and_negative_prompts_of_mixed_kinds(folders: dict[str, Path]):
    """One text for an item is that text for each of its views."""
    prior = load_prior(folders["sd"], "cpu")
    mixed = prior.condition([["a car", "red"], "black"], ["green", ["the", "on"]])
    each = prior.condition([["a car", "red"], ["black"] * 2], [["green"] * 2, ["the", "on"]])
    assert torch.equal(mixed.embeddings, each.embeddings)
    assert torch.equal(mixed.negative_embeddings, each.negative_embeddings)
    alone = prior.condition(["a car"], [["the", "on"]])
    assert alone.embeddings.shape == alone.negative_embeddings.shape == (1, 2, 12, 32)
    with pytest.raises(ValueError, match="got 2, 3"):
        prior.condition([["a", "b"]], [["a", "b", "c"]])
    with pytest.raises(ValueError, match="got 2, 4"):
        prior.condition([["a", "b"]], "", torch.eye(4).expand(1, 4, 4, 4))
