"""Files and folders with more, less or something else than the weights that are read."""

from __future__ import annotations

import math
import shutil
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

import tiny_models
import tiny_pipelines
from models.test_models_command import checkpoints, files_in
from priors.test_single_files import SingleFile
from rewardsds.errors import RewardsdsError
from rewardsds.models.check import check
from rewardsds.models.convert import convert
from rewardsds.priors.load import load_prior
from rewardsds.rewards.load import load_reward

LEFT = {
    "model_ema.decay": torch.tensor(0.9),
    "model_ema.diffusion_modelout2weight": torch.ones(3),
    "betas": torch.ones(1000),
    "sqrt_alphas_cumprod": torch.ones(1000),
    "posterior_variance": torch.ones(1000),
    "log_one_minus_alphas_cumprod": torch.ones(1000),
    "lvlb_weights": torch.ones(1000),
    "logvar": torch.ones(1000),
    "cond_stage_model.logit_scale": torch.tensor(4.6),
    "first_stage_model.loss.logvar": torch.tensor(0.0),
}


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("files")
    sd2 = folder / "sd2.pt"
    torch.save(SingleFile("sd2").published(), sd2)
    return {**checkpoints(folder), "sd2": sd2}


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("companion")
    tiny_models.tokenizer().save_pretrained(str(folder))
    return str(folder)


def with_more(file: Path, more: dict[str, Tensor], out: Path) -> Path:
    state = torch.load(file, weights_only=True)
    torch.save({**state.get("state_dict", state), **more}, out)
    return out


@pytest.mark.parametrize("kind", ["stable-diffusion", "sd2", "mvdream"])
def test_what_training_left_is_named_and_changes_nothing(
    kind: str, files: dict[str, Path], tokenizer: str, tmp_path: Path
) -> None:
    path = with_more(files[kind], LEFT, tmp_path / "left.ckpt")
    lines = check(path)
    (told,) = [line for line in lines if line.startswith("not used")]
    assert all(name in told for name in ("model_ema.*", "betas", "sqrt_alphas_cumprod"))
    assert any("every other weight has its place" in line for line in lines)
    recipe: Any = "mvdream" if kind == "mvdream" else "stable-diffusion"
    both = [convert(recipe, file, tmp_path / file.stem, tokenizer) for file in (files[kind], path)]
    assert files_in(both[0]) == files_in(both[1])


def test_the_layer_that_stable_diffusion_2_does_not_read_is_named(files: dict[str, Path]) -> None:
    (told,) = [line for line in check(files["sd2"]) if line.startswith("not used")]
    assert "cond_stage_model.model.transformer.resblocks.2.*" in told


@pytest.mark.parametrize("kind", ["image-reward", "reward3d"])
def test_heads_of_pretraining_are_named(kind: str, files: dict[str, Path]) -> None:
    (told,) = [line for line in check(files[kind]) if line.startswith("not used")]
    assert "blip.vision_proj.*" in told


def test_where_every_weight_is_read_nothing_else_is_told(files: dict[str, Path]) -> None:
    lines = check(files["aesthetic"])
    assert any(line.endswith("every weight has its place") for line in lines)
    assert not any("not used" in line for line in lines)


@pytest.mark.parametrize("kind", ["stable-diffusion", "sd2", "mvdream", "image-reward", "reward3d", "hps"])
def test_what_nothing_reads_is_refused_by_name(
    kind: str, files: dict[str, Path], tokenizer: str, tmp_path: Path
) -> None:
    path = with_more(files[kind], {"garbage.weight": torch.ones(3)}, tmp_path / "more.ckpt")
    with pytest.raises(RewardsdsError, match=r"it has garbage\.weight besides"):
        check(path)
    recipe: Any = "stable-diffusion" if kind == "sd2" else kind
    with pytest.raises(RewardsdsError, match=r"it has garbage\.weight besides"):
        convert(recipe, path, tmp_path / "out", tokenizer)
    assert not (tmp_path / "out").exists()
    load: Callable[..., object] = load_prior if recipe in ("mvdream", "stable-diffusion") else load_reward
    with pytest.raises(ValueError, match=r"it has garbage\.weight besides"):
        load(path, "cpu")


@pytest.mark.parametrize(
    "name, told",
    [
        ("control_model.zero_convs.0.0.weight", "ControlNet"),
        ("lora_unet_mid_block.lora_down.weight", "LoRA"),
        ("lycoris_mid_block.hada_w1_a", "LyCORIS"),
        ("down_blocks.0.resnets.0.conv1.weight", "diffusers' names"),
    ],
)
def test_files_of_others_are_called_by_their_names(
    name: str, told: str, files: dict[str, Path], tmp_path: Path
) -> None:
    """Alone, and within a Stable Diffusion."""
    alone = tmp_path / "alone.safetensors"
    save_file({name: torch.ones(3)}, alone)
    within = with_more(files["stable-diffusion"], {name: torch.ones(3)}, tmp_path / "within.ckpt")
    for path in (alone, within):
        with pytest.raises(RewardsdsError, match=f"{path.name}: this is a file of .*{told}.*: give "):
            check(path)


def test_a_program_is_not_run_and_not_called_damaged(tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.save(torch.jit.script(torch.nn.Linear(3, 3)), tmp_path / "ViT-B-32.pt")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(RewardsdsError, match="is a TorchScript program, which was not run: get") as error:
            check(tmp_path / "ViT-B-32.pt")
    assert "damaged" not in str(error.value)


def changed(file: Path, value: float, out: Path) -> tuple[Path, str]:
    """A file with a number of a weight replaced, and that weight's name."""
    state = torch.load(file, weights_only=True)
    own = state.get("state_dict", state)
    name = next(
        name for name, tensor in own.items() if tensor.is_floating_point() and name.endswith("weight")
    )
    own[name] = own[name].double() if abs(value) > 3e38 else own[name].float()
    own[name].flatten()[0] = value
    torch.save(state, out)
    return out, name


RECIPES: Any = ["image-reward", "reward3d", "hps", "mvdream", "stable-diffusion", "aesthetic"]


@pytest.mark.parametrize("recipe", RECIPES)
@pytest.mark.parametrize(
    "value, half, told",
    [
        (math.nan, True, "is damaged: NaN or infinity in {}; get it again"),
        (-math.inf, False, "is damaged: NaN or infinity in {}; get it again"),
        (7e4, True, r"numbers up to 7e\+04 in {}, which float16 does not hold: convert it with --no-half"),
        (1e39, False, r"numbers up to 1e\+39 in {}, which float32 does not hold"),
    ],
)
def test_what_is_written_holds_the_files_numbers(
    recipe: Any, value: float, half: bool, told: str, files: dict[str, Path], tokenizer: str,
    tiny_clip_folder: Path, tmp_path: Path,
) -> None:  # fmt: skip
    path, name = changed(files[recipe], value, tmp_path / "file.pt")
    companion = str(tiny_clip_folder) if recipe == "aesthetic" else tokenizer
    with pytest.raises(RewardsdsError, match=told.format(name.replace(".", r"\."))) as error:
        convert(recipe, path, tmp_path / "out", companion, half=half)
    assert "\n" not in str(error.value)
    assert [found.name for found in tmp_path.iterdir()] == ["file.pt"]


def test_large_numbers_are_kept_without_half(files: dict[str, Path], tokenizer: str, tmp_path: Path) -> None:
    path, _ = changed(files["hps"], 7e4, tmp_path / "file.pt")
    out = convert("hps", path, tmp_path / "out", tokenizer, half=False)
    assert max(float(value.abs().max()) for value in load_file(out / "model.safetensors").values()) == 7e4


@pytest.mark.parametrize("recipe", RECIPES)
def test_what_cannot_run_is_not_left(
    recipe: Any, files: dict[str, Path], tokenizer: str, tiny_clip_folder: Path, tmp_path: Path
) -> None:
    """Every number is finite, and what comes out is not."""
    state = torch.load(files[recipe], weights_only=True)
    own = state.get("state_dict", state)
    ends = {
        "hps": "visual.ln_post.weight",
        "aesthetic": "weight",
        "mvdream": "model.diffusion_model.out.2.weight",
        "stable-diffusion": "model.diffusion_model.out.2.weight",
    }
    last = ends.get(recipe) or [name for name in own if name.startswith("mlp.layers.")][-2]
    own[last] = torch.full_like(own[last].float(), 3e38)
    if recipe in ("image-reward", "reward3d"):
        first = next(name for name in own if name.startswith("mlp.layers.") and name.endswith("weight"))
        own[first] = torch.full_like(own[first].float(), 3e38)
    if recipe == "aesthetic":
        own["bias"] = torch.full_like(own["bias"].float(), 3e38)
    torch.save(state, tmp_path / "file.pt")
    companion = str(tiny_clip_folder) if recipe == "aesthetic" else tokenizer
    with pytest.raises(RewardsdsError, match=f"in {tmp_path / 'out'} .*NaN or infinity"):
        convert(recipe, tmp_path / "file.pt", tmp_path / "out", companion, half=False)
    assert [found.name for found in tmp_path.iterdir()] == ["file.pt"]


@pytest.mark.parametrize("recipe", ["mvdream", "stable-diffusion"])
def test_a_tokenizer_that_knows_more_words_than_the_text_encoder_is_refused(
    recipe: Any, files: dict[str, Path], tmp_path: Path
) -> None:
    own = tiny_models.tokenizer()
    own.add_tokens([f"word{index}" for index in range(100)])
    own.save_pretrained(str(tmp_path / "companion"))
    with pytest.raises(RewardsdsError, match=r"tokenizer has \d+ tokens, its CLIPTextModel knows"):
        convert(recipe, files[recipe], tmp_path / "out", str(tmp_path / "companion"))
    assert [found.name for found in tmp_path.iterdir()] == ["companion"]


def test_an_empty_folder_that_we_are_in_is_filled(
    files: dict[str, Path], tokenizer: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert convert("mvdream", files["mvdream"], Path("."), tokenizer) == tmp_path
    assert Path.cwd() == tmp_path
    assert not any(path.name.startswith(".") for path in tmp_path.iterdir())
    assert "4 views together" in check(Path("."))[0]
    with pytest.raises(RewardsdsError, match=f"{tmp_path} exists already"):
        convert("mvdream", files["mvdream"], Path("."), tokenizer)


def test_an_empty_folder_that_we_are_in_stays_empty_where_it_goes_wrong(
    files: dict[str, Path], tokenizer: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(RewardsdsError, match="tokenizer"):
        convert("mvdream", files["mvdream"], Path("."), str(tmp_path / "none"))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("recipe", ["hps", "image-reward", "reward3d", "aesthetic"])
def test_what_predicts_nothing_has_no_type_of_prediction(
    recipe: Any, files: dict[str, Path], tmp_path: Path
) -> None:
    with pytest.raises(
        RewardsdsError, match=f"--prediction-type is of stable-diffusion and mvdream, {recipe}"
    ):
        convert(recipe, files[recipe], tmp_path / "out", prediction_type="v_prediction")


def rename(folder: Path, parts: tuple[str, ...], change: Callable[[str], str]) -> None:
    for part in parts:
        for path in list((folder / part).glob("*.safetensors")):
            path.rename(path.with_name(change(path.name)))


def fp16(name: str) -> str:
    return name.replace(".safetensors", ".fp16.safetensors")


FOLDERS: Any = [
    (tiny_models.save_prior, ("unet", "vae", "text_encoder"), load_prior),
    (tiny_pipelines.save_sdxl, ("unet", "vae", "text_encoder", "text_encoder_2"), load_prior),
    (tiny_models.save_clip, ("",), load_reward),
]


@pytest.mark.parametrize("save, parts, load", FOLDERS)
def test_weights_of_one_variant_alone_are_read(save: Any, parts: Any, load: Any, tmp_path: Path) -> None:
    folder = save(tmp_path / "model")
    own = check(folder)
    rename(folder, parts, fp16)
    load(folder, "cpu")
    assert check(folder) == own


@pytest.mark.parametrize("save, parts, load", FOLDERS)
def test_weights_of_several_variants_are_told(save: Any, parts: Any, load: Any, tmp_path: Path) -> None:
    folder = save(tmp_path / "model")
    rename(folder, parts, fp16)
    place = folder / parts[0]
    (file,) = place.glob("*.safetensors")
    shutil.copy(file, place / file.name.replace("fp16", "bf16"))
    plain = file.name.replace(".fp16", "")
    with pytest.raises(ValueError, match=f"{place} holds the variants bf16, fp16 .*rename one .* to {plain}"):
        load(folder, "cpu")
    shutil.copy(file, place / plain)
    load(folder, "cpu")


@pytest.mark.parametrize("save, parts, load", FOLDERS)
def test_pickles_are_told_with_what_can_be_done(save: Any, parts: Any, load: Any, tmp_path: Path) -> None:
    folder = save(tmp_path / "model")
    rename(folder, parts, lambda name: name.replace(".safetensors", ".bin"))
    with pytest.raises(ValueError, match=rf"{folder / parts[0]} holds \w+\.bin, a pickle, .*save_pretrained"):
        load(folder, "cpu")


@pytest.mark.parametrize("save, parts, load", FOLDERS)
def test_a_configuration_alone_is_told(save: Any, parts: Any, load: Any, tmp_path: Path) -> None:
    folder = save(tmp_path / "model")
    for path in (folder / parts[0]).glob("*.safetensors"):
        path.unlink()
    with pytest.raises(ValueError, match=rf"{folder / parts[0]} holds config.json.*expected .*\.safetensors"):
        load(folder, "cpu")


@pytest.mark.parametrize("part", ["unet", "vae", "text_encoder", "tokenizer", "scheduler"])
def test_an_empty_folder_of_a_part_is_named(part: str, tiny_prior_folder: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(tiny_prior_folder, tmp_path / "prior")
    for path in (folder / part).iterdir():
        path.unlink()
    with pytest.raises(ValueError, match=f"{folder} is no prior .*it lacks what {part} holds"):
        load_prior(folder, "cpu")
