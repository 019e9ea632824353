"""Folders without a vocabulary, of which transformers makes a tokenizer that reads all prompts alike."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import SiglipConfig, SiglipModel

import tiny_models
import tiny_pipelines
from rewards.test_original_checkpoints import image_reward_state
from rewardsds.errors import RewardsdsError
from rewardsds.models.check import check
from rewardsds.models.convert import convert
from rewardsds.pretrained import TokenizerError, read_tokenizer
from rewardsds.priors.load import load_prior
from rewardsds.rewards.load import load_reward

WORDS = {"<|startoftext|>": 0, "<|endoftext|>": 1, "r": 2, "e": 3, "d</w>": 4, "re": 5, "red</w>": 6}
CONFIGURATIONS: list[Any] = [
    None,
    {"tokenizer_class": "CLIPTokenizer", "model_max_length": 12},
    {"tokenizer_class": "BertTokenizer"},
    {"tokenizer_class": "T5Tokenizer", "extra_ids": 100},
    {"tokenizer_class": "TokenizersBackend"},
    {"tokenizer_class": "SiglipTokenizer"},
]


def without_vocabulary(folder: Path, configuration: Any) -> Path:
    for name in ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"):
        (folder / name).unlink(missing_ok=True)
    if configuration is not None:
        (folder / "tokenizer_config.json").write_text(json.dumps(configuration))
    return folder


def missing(folder: Path) -> str:
    return f"{folder} holds no tokenizer: its vocabulary is missing .*put the tokenizer's files there"


@pytest.mark.parametrize("configuration", CONFIGURATIONS)
def test_a_clip_without_a_vocabulary_is_refused(
    tiny_clip_folder: Path, tmp_path: Path, configuration: Any
) -> None:
    folder = without_vocabulary(shutil.copytree(tiny_clip_folder, tmp_path / "clip"), configuration)
    with pytest.raises(ValueError, match=missing(folder)) as error:
        load_reward(folder, "cpu")
    assert "\n" not in str(error.value)
    with pytest.raises(RewardsdsError, match=missing(folder)):
        check(folder)


@pytest.mark.parametrize("configuration", CONFIGURATIONS[1:])
def test_a_prior_without_a_vocabulary_is_refused(
    tiny_prior_folder: Path, tmp_path: Path, configuration: Any
) -> None:
    folder = shutil.copytree(tiny_prior_folder, tmp_path / "prior")
    tokenizer = without_vocabulary(folder / "tokenizer", configuration)
    with pytest.raises(RewardsdsError, match=missing(tokenizer)):
        check(folder)


@pytest.mark.parametrize("configuration", [CONFIGURATIONS[1], CONFIGURATIONS[4]])
def test_a_pipeline_without_a_vocabulary_is_refused(tmp_path: Path, configuration: Any) -> None:
    folder = tiny_pipelines.save_sdxl(tmp_path / "sdxl")
    tokenizer = without_vocabulary(folder / "tokenizer_2", configuration)
    with pytest.raises(ValueError, match=missing(tokenizer)):
        load_prior(folder, "cpu")


def test_a_siglip_without_a_tokenizer_is_told_in_a_line(tmp_path: Path) -> None:
    tower = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2}
    vision = {**tower, "image_size": 16, "patch_size": 8}
    SiglipModel(SiglipConfig(text_config=tower, vision_config=vision)).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=missing(tmp_path)) as error:
        load_reward(tmp_path, "cpu")
    assert len(str(error.value)) < 400


def test_an_image_reward_is_neither_made_nor_loaded_without_a_vocabulary(tmp_path: Path) -> None:
    torch.save(image_reward_state(), tmp_path / "ImageReward.pt")
    companion = tmp_path / "companion"
    companion.mkdir()
    (companion / "config.json").write_text('{"model_type": "bert"}')
    with pytest.raises(RewardsdsError, match=missing(companion)):
        convert("image-reward", tmp_path / "ImageReward.pt", tmp_path / "out", str(companion))
    assert not (tmp_path / "out").exists()
    tiny_models.tokenizer().save_pretrained(companion)
    out = convert("image-reward", tmp_path / "ImageReward.pt", tmp_path / "out", str(companion))
    tokenizer = without_vocabulary(out / "tokenizer", CONFIGURATIONS[2])
    with pytest.raises(RewardsdsError, match=missing(tokenizer)):
        check(out)
    shutil.rmtree(tokenizer)
    with pytest.raises(RewardsdsError, match=missing(tokenizer)):
        check(out)


@pytest.mark.parametrize(
    "kind, files, token",
    [
        (
            "CLIPTokenizer",
            {"vocab.json": json.dumps(WORDS), "merges.txt": "#version: 0.2\nr e\nre d</w>\n"},
            "red</w>",
        ),
        ("BertTokenizer", {"vocab.txt": "[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\nred\n"}, "red"),
    ],
)
def test_vocabularies_of_other_files_are_read(
    tmp_path: Path, kind: str, files: dict[str, str], token: str
) -> None:
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": kind}))
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    own = read_tokenizer(tmp_path)
    assert own("red", add_special_tokens=False)["input_ids"] == [own.get_vocab()[token]]


def test_a_vocabulary_that_cannot_be_read_is_told_with_its_folder(tmp_path: Path) -> None:
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "CLIPTokenizer"}))
    (tmp_path / "vocab.json").write_text(json.dumps(WORDS))  # and no merges
    with pytest.raises(TokenizerError, match=f"the tokenizer in {tmp_path} cannot be read: .*merges"):
        read_tokenizer(tmp_path)
