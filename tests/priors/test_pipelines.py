"""SDXL, Stable Diffusion 3 and FLUX against diffusers' own pipelines, on random checkpoints in their layouts."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers.schedulers.scheduling_ddim import DDIMScheduler
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import CLIPTextModelWithProjection, T5EncoderModel

import tiny_pipelines
from rewardsds.distillation.guidance import RewardSDS
from rewardsds.distillation.losses import SDS, VSD
from rewardsds.distillation.weighting import BestWorst
from rewardsds.priors.load import load_prior
from rewardsds.priors.lora import LoRAEstimator
from rewardsds.priors.pipelines import FluxPrior, SD3Prior, SDXLPrior
from rewardsds.priors.schedules import flow_shift

PROMPT, NEGATIVE = "a red apple", "blur"


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    at = tmp_path_factory.mktemp("pipelines")
    return {
        "sdxl": tiny_pipelines.save_sdxl(at / "sdxl"),
        "sdxl-v": tiny_pipelines.save_sdxl(at / "sdxl-v", "v_prediction"),
        "sd3": tiny_pipelines.save_sd3(at / "sd3"),
        "sd3-without-t5": tiny_pipelines.save_sd3(at / "sd3-without-t5", t5=False),
        "flux-dev": tiny_pipelines.save_flux(at / "flux-dev"),
        "flux-schnell": tiny_pipelines.save_flux(at / "flux-schnell", distilled=False),
    }


class Overheard:
    """What a pipeline's network was last given and answered."""

    def __init__(self, network: torch.nn.Module) -> None:
        self.given: dict[str, Any] = {}
        self.first: Any = None
        self.answer = torch.empty(0)
        network.register_forward_hook(self._hear, with_kwargs=True)

    def _hear(self, module: Any, args: Any, kwargs: Any, output: Any) -> None:
        self.given = dict(kwargs)
        self.first = args
        self.answer = output[0] if isinstance(output, tuple) else output.sample


def one(latents: Tensor) -> Tensor:
    return latents[None, :, None]


@pytest.mark.parametrize("name", ["sdxl", "sdxl-v"])
def test_sdxl_predicts_what_the_pipeline_does(folders: dict[str, Path], name: str):
    prior = load_prior(folders[name], "cpu")
    assert isinstance(prior, SDXLPrior)
    assert (prior.latent_shape, prior.image_size, prior.views) == ((4, 8, 8), 16, 1)
    pipeline = prior.pipeline
    pipeline.scheduler = DDIMScheduler.from_config(pipeline.scheduler.config)
    pipeline.set_progress_bar_config(disable=True)
    heard = Overheard(prior.network)
    pipeline(
        PROMPT,
        negative_prompt=NEGATIVE,
        num_inference_steps=2,
        guidance_scale=5.0,
        height=16,
        width=16,
        output_type="latent",
        generator=torch.Generator().manual_seed(0),
    )
    noisy, t = heard.first[0][:1], heard.first[1]
    unwanted, wanted = heard.answer
    condition = prior.condition([PROMPT], NEGATIVE)
    prediction = prior.predict(one(noisy), t.reshape(1), condition)
    levels: Tensor = pipeline.scheduler.alphas_cumprod[t]  # pyright: ignore[reportAttributeAccessIssue]
    for ours, theirs in ((prediction.conditional, wanted), (prediction.unconditional, unwanted)):
        noise = theirs if name == "sdxl" else levels.sqrt() * theirs + (1 - levels).sqrt() * noisy[0]
        assert ours is not None
        torch.testing.assert_close(ours[0, 0, 0], noise, rtol=1e-5, atol=1e-5)


def test_sdxl_reads_an_empty_negative_prompt_as_zeros(folders: dict[str, Path]):
    condition = load_prior(folders["sdxl"], "cpu").condition([PROMPT], "")
    assert condition.embeddings.abs().sum() > 0
    assert condition.negative_embeddings.abs().sum() == 0
    assert condition.extras is not None
    assert condition.extras["negative_pooled"].abs().sum() == 0


@pytest.mark.parametrize("name", ["sd3", "sd3-without-t5", "flux-dev", "flux-schnell"])
def test_flows_predict_what_the_pipelines_do(folders: dict[str, Path], name: str):
    size = 16
    prior = load_prior(folders[name], "cpu", image_size=size)
    assert isinstance(prior, SD3Prior if name.startswith("sd3") else FluxPrior)
    assert prior.latent_shape == (4, 8, 8)
    pipeline = prior.pipeline
    pipeline.set_progress_bar_config(disable=True)
    heard = Overheard(prior.network)
    half = 499  # its time is a half before the shift, which is what the pipeline is told
    pipeline(
        PROMPT,
        sigmas=[0.5],
        num_inference_steps=1,
        guidance_scale=3.5 if name == "flux-dev" else 1.0,
        height=size,
        width=size,
        max_sequence_length=256 if name.startswith("sd3") else 512,
        output_type="latent",
        generator=torch.Generator().manual_seed(0),
    )
    flow, velocity = heard.given["hidden_states"], heard.answer
    s = heard.given["timestep"][0] / (1000.0 if name.startswith("sd3") else 1.0)
    if isinstance(prior, FluxPrior):
        flow, velocity = (pipeline._unpack_latents(x, size, size, 2) for x in (flow, velocity))
    levels = prior.alphas_cumprod[half]
    alpha, sigma = levels.sqrt(), (1 - levels).sqrt()
    assert float(sigma / (alpha + sigma)) == pytest.approx(float(s), abs=1e-6)
    ours = prior.predict(
        one(flow * (alpha + sigma)), torch.tensor([half]), prior.condition([PROMPT]), unconditional=False
    ).conditional[0, :, 0]
    torch.testing.assert_close(ours, flow + (1 - s) * velocity, rtol=1e-4, atol=2e-5)


def test_flow_shifts_times_by_the_pictures_size():
    dev = {
        "_class_name": "FlowMatchEulerDiscreteScheduler",
        "use_dynamic_shifting": True,
        "base_image_seq_len": 256,
        "max_image_seq_len": 4096,
        "base_shift": 0.5,
        "max_shift": 1.15,
    }
    assert flow_shift(dev, 256) == pytest.approx(1.6487, abs=1e-4)  # e^0.5
    assert flow_shift(dev, 4096) == pytest.approx(3.1582, abs=1e-4)  # e^1.15
    assert flow_shift({**dev, "use_dynamic_shifting": False, "shift": 1.0}, 4096) == 1.0


@pytest.mark.parametrize("name", ["sdxl", "sd3", "flux-dev"])
def test_encode_undoes_decodes_scaling(folders: dict[str, Path], name: str):
    prior = load_prior(folders[name], "cpu", image_size=16)
    config = prior.vae.config
    image = torch.rand(1, 1, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        raw = prior.vae.encode(2 * image[:, 0] - 1).latent_dist.mode()
    expected = (raw - (config["shift_factor"] or 0.0)) * config["scaling_factor"]
    torch.testing.assert_close(prior.encode(image)[:, 0], expected)


@pytest.mark.parametrize("name", ["sdxl", "sd3", "flux-schnell"])
def test_a_step_of_the_method_and_vsd(folders: dict[str, Path], name: str):
    prior = load_prior(folders[name], "cpu", image_size=16)
    latents = torch.zeros(2, *prior.latent_shape, requires_grad=True)

    def brightness(images: Tensor, prompts: Any) -> Tensor:
        return images.mean(dim=(2, 3, 4, 5))

    guidance = RewardSDS(prior, brightness, candidates=3, weighting=BestWorst(1), loss=SDS(7.0))
    guidance(latents=latents, prompt=PROMPT).backward()
    assert latents.grad is not None
    assert latents.grad.isfinite().all()
    assert (latents.grad != 0).all()

    estimator = LoRAEstimator(prior, rank=2)
    condition = prior.condition([PROMPT, PROMPT])
    noisy = torch.randn(1, 2, 1, *prior.latent_shape, generator=torch.Generator().manual_seed(0))
    t = torch.tensor([400, 600])
    with torch.no_grad():
        own = prior.predict(noisy, t, condition, unconditional=False).conditional
        assert torch.equal(estimator.predict(noisy, t, condition), own)
    vsd = VSD(estimator, guidance_scale=1.0)
    guidance = RewardSDS(prior, brightness, candidates=2, weighting=BestWorst(1), loss=vsd)
    for _ in range(3):
        guidance(latents=latents, prompt=PROMPT).backward()
    with torch.no_grad():
        assert not torch.equal(estimator.predict(noisy, t, condition), own)
        assert torch.equal(prior.predict(noisy, t, condition, unconditional=False).conditional, own)
    estimator.remove()


def damaged(folder: Path, out: Path, part: str, damage: Callable[[dict[str, Tensor]], object]) -> Path:
    """A copy, with other weights of a part."""
    shutil.copytree(folder, out)
    (file,) = (out / part).glob("*.safetensors")
    state = load_file(file)
    damage(state)
    save_file(state, file, metadata={"format": "pt"})
    return out


@pytest.mark.parametrize(
    "name, part, missing",
    [
        ("sdxl", "text_encoder", "final_layer_norm.bias"),
        ("sdxl", "text_encoder_2", "text_projection.weight"),
        ("sd3", "text_encoder", "text_projection.weight"),
        ("sd3", "text_encoder_3", "shared.weight"),
        ("flux-dev", "text_encoder_2", "block.1.layer.1.DenseReluDense.wo.weight"),
        ("flux-dev", "transformer", "norm_out.linear.bias"),
    ],
)
def test_no_weight_is_made_up(folders: dict[str, Path], tmp_path: Path, name: str, part: str, missing: str):
    def take_out(state: dict[str, Tensor]) -> None:
        (own,) = [key for key in state if key.endswith(missing)]
        del state[own]

    folder = damaged(folders[name], tmp_path / "broken", part, take_out)
    with pytest.raises(ValueError, match=rf"{part} holds no \w+: it lacks .*{missing}") as error:
        load_prior(folder, "cpu")
    assert "\n" not in str(error.value)


def test_t5_may_hold_its_words_twice(folders: dict[str, Path], tmp_path: Path):
    """As files from other libraries do; the two are one."""

    def repeat(state: dict[str, Tensor]) -> None:
        state["encoder.embed_tokens.weight"] = state["shared.weight"].clone()

    folder = damaged(folders["flux-dev"], tmp_path / "twice", "text_encoder_2", repeat)
    whole, again = (
        load_prior(one, "cpu", image_size=16).condition([PROMPT]) for one in (folders["flux-dev"], folder)
    )
    assert torch.equal(whole.embeddings, again.embeddings)


def test_quantised_weights_are_refused(folders: dict[str, Path], tmp_path: Path):
    def quantise(state: dict[str, Tensor]) -> None:
        state.update({key: (100 * value).to(torch.int8) for key, value in state.items()})

    for part in ("unet", "text_encoder_2"):
        folder = damaged(folders["sdxl"], tmp_path / part, part, quantise)
        with pytest.raises(
            ValueError, match=f"{part} holds I8 weights, which are quantised: get it in float16"
        ):
            load_prior(folder, "cpu")


@pytest.mark.parametrize("name, other", [("sd3", "flux-dev"), ("flux-dev", "sd3")])
def test_text_encoders_of_another_model_are_refused(
    folders: dict[str, Path], tmp_path: Path, name: str, other: str
):
    """Their T5s write states of 56 and of 32."""
    parts = {"sd3": "text_encoder_3", "flux-dev": "text_encoder_2"}
    folder = tmp_path / "mixed"
    shutil.copytree(folders[name], folder)
    shutil.rmtree(folder / parts[name])
    shutil.copytree(folders[other] / parts[other], folder / parts[name])
    widths = {"sd3": 56, "flux-dev": 32}
    told = rf"reads texts of width {widths[name]}, its text encoders write {widths[other]}"
    with pytest.raises(ValueError, match=told) as error:
        load_prior(folder, "cpu")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "name", ["StableDiffusionXLInpaintPipeline", "FluxFillPipeline", "KandinskyPipeline"]
)
def test_a_pipeline_of_another_kind_is_refused(folders: dict[str, Path], tmp_path: Path, name: str):
    folder = tmp_path / "other"
    shutil.copytree(folders["sdxl"], folder)
    index = folder / "model_index.json"
    index.write_text(json.dumps({**json.loads(index.read_text()), "_class_name": name}))
    with pytest.raises(ValueError, match=rf"other is a {name}, .*StableDiffusionXLPipeline") as error:
        load_prior(folder, "cpu")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", ["sdxl", "sd3", "flux-dev"])
def test_precision_is_that_asked_for_whatever_the_file_has(folders: dict[str, Path], name: str):
    for dtype in (torch.bfloat16, torch.float16):
        prior = load_prior(folders[name], "cpu", dtype)
        assert {value.dtype for value in prior.network.parameters()} == {dtype}
        kept = torch.float32 if name == "sdxl" and dtype == torch.float16 else dtype  # else it overflows
        assert {value.dtype for value in prior.vae.parameters()} == {kept}


def test_sd3_is_told_the_exact_time_in_half_precision(folders: dict[str, Path]):
    """As its pipeline tells it: 997.0 is 996 in bfloat16."""
    prior = load_prior(folders["sd3"], "cpu", torch.bfloat16, image_size=16)
    heard = Overheard(prior.network)
    prior.predict(torch.zeros(1, 1, 1, *prior.latent_shape), torch.tensor([998]), prior.condition([PROMPT]))
    levels = prior.alphas_cumprod[998]
    alpha, sigma = levels.sqrt(), (1 - levels).sqrt()
    expected = 1000 * float(sigma / (alpha + sigma))
    assert heard.given["timestep"].tolist() == pytest.approx([expected] * 2, abs=1e-3)


def test_text_encoders_come_one_after_the_other(folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch):
    """Three of them, of which no two are away from the CPU at a time, and none from the beginning."""
    moves: list[tuple[str, str]] = []
    for kind in (CLIPTextModelWithProjection, T5EncoderModel):

        def to(self: Any, device: Any, own: Any = kind.to, name: str = kind.__name__) -> Any:
            moves.append((name, str(device)))
            return own(self, device)

        monkeypatch.setattr(kind, "to", to)
    whole = load_prior(folders["sd3"], "cpu", image_size=16).condition([PROMPT])
    moves.clear()
    prior = load_prior(folders["sd3"], "cpu", image_size=16, offload=True)
    kinds = ["CLIPTextModelWithProjection"] * 2 + ["T5EncoderModel"]
    assert moves == [(kind, "cpu") for kind in kinds]
    moves.clear()
    again = prior.condition([PROMPT], PROMPT)
    assert [kind for kind, _ in moves] == [kind for kind in kinds for _ in range(2)] * 2  # there and back
    assert torch.equal(whole.embeddings, again.embeddings)
    prior.condition([PROMPT], PROMPT)
    assert len(moves) == 12  # it is known


def test_a_folder_without_a_part_is_refused(folders: dict[str, Path], tmp_path: Path):
    broken = tmp_path / "broken"
    shutil.copytree(folders["sd3"], broken)
    shutil.rmtree(broken / "text_encoder_2")
    with pytest.raises(ValueError, match=r"broken .*lacks text_encoder_2"):
        load_prior(broken, "cpu")
