"""What is given in the wrong place, and what is told of folders that are no models."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch

import tiny_models
from models.test_caches import put
from rewardsds.catalogue import KNOWN, KnownModel
from rewardsds.cli import main
from rewardsds.errors import RewardsdsError
from rewardsds.models.check import check
from rewardsds.priors.load import load_prior
from rewardsds.rewards.load import load_reward


def error_of(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    assert main(list(map(str, arguments))) in (1, 2)
    (line,) = capsys.readouterr().err.splitlines()
    return line


@pytest.mark.parametrize("model", KNOWN, ids=lambda model: model.name)
def test_a_reward_is_no_prior_and_a_prior_no_reward(model: KnownModel) -> None:
    load, other = (load_prior, "reward") if model.kind == "reward" else (load_reward, "prior")
    for name in (model.name, *model.repos):
        with pytest.raises(ValueError, match=f"^{name} is a {other}, not a .*: give it to --{other}"):
            load(name, "cpu")


def test_the_command_says_where_a_reward_belongs(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    told = error_of(capsys, "image", "a car", "--prior", "clip-l", "--out", tmp_path / "run")
    assert "clip-l is a reward, not a prior: give it to --reward" in told
    told = error_of(capsys, "image", "a red cube", "--reward", "sd-2.1-base", "--out", tmp_path / "run")
    assert "sd-2.1-base is a prior, not a reward: give it to --prior" in told


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_nobody_is_advised_to_run_the_code_of_a_model(
    tiny_prior_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = shutil.copytree(tiny_prior_folder, tmp_path / "prior")
    own = folder / "tokenizer"
    (own / "own.py").write_text("raise SystemExit('ran')")
    (own / "tokenizer_config.json").write_text(
        json.dumps({"tokenizer_class": "Own", "auto_map": {"AutoTokenizer": ["own.Own", None]}})
    )
    (own / "tokenizer.json").rename(own / "vocab.txt")
    told = error_of(capsys, "models", "check", folder)
    assert f"the tokenizer in {own} cannot be read: it needs code of its own, which is never run here" in told
    assert "trust_remote_code" not in told


def test_nor_that_of_a_model_on_the_hub(cache: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = {"model_type": "own", "auto_map": {"AutoConfig": "own.Own"}}
    put(
        cache,
        "someone/own",
        {"config.json": json.dumps(config).encode(), "own.py": b"raise SystemExit('ran')"},
    )
    told = error_of(capsys, "score", "--metrics", "someone/own", "--prompts", "x", "y")
    assert "trust_remote_code" not in told
    with pytest.raises(ValueError, match=r"someone/own.*") as error:
        load_reward("someone/own", "cpu")
    assert "trust_remote_code" not in str(error.value)
    assert "\n" not in str(error.value)


def test_a_folder_that_is_no_model_is_told_with_what_it_holds(tmp_path: Path) -> None:
    def told() -> str:
        with pytest.raises(RewardsdsError) as error:
            check(tmp_path)
        assert "\n" not in str(error.value)
        return str(error.value)

    assert told().endswith("there is nothing")
    assert "a prior has model_index.json, or the folders unet, vae" in told()
    assert "a reward has config.json and model.safetensors" in told()
    (tmp_path / "notes.txt").write_text("x")
    (tmp_path / "pictures").mkdir()
    assert told().endswith("there is notes.txt, pictures/")
    torch.save({}, tmp_path / "v2.ckpt")
    assert told().endswith(f"a checkpoint is given as the file itself: {tmp_path / 'v2.ckpt'}")
    tiny_models.save_clip(tmp_path / "clip")
    assert "folders do that lie in it: give one of clip" in told()


def test_a_part_of_a_prior_is_told(tiny_prior_folder: Path) -> None:
    with pytest.raises(
        RewardsdsError, match=r"is a UNet2DConditionModel, a part of a prior: give the folder above"
    ):
        check(tiny_prior_folder / "unet")


def test_the_list_says_what_its_sizes_are_of(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["models", "list"]) == 0
    first, *_ = capsys.readouterr().out.splitlines()
    assert "of the weights alone" in first
    assert "rewardsds doctor" in first


def test_a_type_of_prediction_of_a_reward_is_told(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    given = ["hps", tmp_path / "x.pt", tmp_path / "out", "--prediction-type", "epsilon"]
    assert "hps predicts nothing: leave it out" in error_of(capsys, "models", "convert", *given)
