"""The tokenizer: ids counted by hand, and agreement with the grammar about what a word is."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rewardsds.toybox.captions import WORDS, describe, parse, sample_spec
from rewardsds.toybox.tokenizer import build_tokenizer

PAD, BOS, UNK, EOS = 0, 1, 2, 3


@pytest.fixture(scope="module")
def tokenizer():
    return build_tokenizer()


def ids_of(words: str) -> list[int]:
    return [4 + WORDS.index(word) for word in words.split()]


def test_special_tokens(tokenizer):
    special = tokenizer.pad_token_id, tokenizer.bos_token_id, tokenizer.unk_token_id, tokenizer.eos_token_id
    assert special == (PAD, BOS, UNK, EOS)
    assert len(tokenizer) == len(WORDS) + 4
    assert tokenizer.model_max_length == 24


def test_ids_are_places_in_the_word_list(tokenizer):
    expected = [BOS, *ids_of("a red apple and two blue cups 4k"), EOS]
    assert tokenizer("a red apple and two blue cups, 4K").input_ids == expected
    assert tokenizer("  A RÉD  apple -- and\ttwo (blue) cups; 4k!").input_ids == expected


def test_unknown_words_and_possessives(tokenizer):
    assert tokenizer("a dragon and a red apple").input_ids == [
        BOS,
        *ids_of("a"),
        UNK,
        *ids_of("and a red apple"),
        EOS,
    ]
    assert tokenizer("a dog's hat").input_ids == [BOS, *ids_of("a dog hat"), EOS]
    assert tokenizer("").input_ids == [BOS, EOS]


def test_padding_and_truncation(tokenizer):
    batch = tokenizer(
        ["a red ball", "a red ball " * 30], padding="max_length", truncation=True, return_tensors="np"
    )
    assert batch.input_ids.shape == (2, 24)
    assert batch.input_ids[0].tolist() == [BOS, *ids_of("a red ball"), EOS] + [PAD] * 19
    assert batch.attention_mask[0].tolist() == [1] * 5 + [0] * 19
    assert batch.input_ids[1].tolist() == [BOS, *ids_of("a red ball " * 7 + "a"), EOS]


def test_every_caption_fits_and_is_known(tokenizer):
    rng = np.random.default_rng(0)
    for _ in range(2000):
        caption = describe(sample_spec(rng), rng)
        ids = tokenizer(caption).input_ids
        assert len(ids) <= 24, caption
        assert UNK not in ids, caption
        text = tokenizer.decode(ids, skip_special_tokens=True)
        assert text == caption.lower().replace(",", "")


@given(st.text(st.characters(max_codepoint=0x2FF) | st.sampled_from("a red dog's '’,.;-_")))
def test_unknown_tokens_are_the_words_that_parse_reports(tokenizer, text):
    ids = tokenizer(text).input_ids
    assert (UNK in ids) == bool(parse(text).unknown)


def test_saved_and_loaded(tokenizer, tmp_path, capfd):
    from transformers import AutoTokenizer

    tokenizer.save_pretrained(tmp_path)
    assert (tmp_path / "tokenizer.json").exists()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        loaded = AutoTokenizer.from_pretrained(tmp_path)
    printed = capfd.readouterr()
    assert printed.err == ""
    captions = ["a penguin with a brown bag in the snow", "a dragon", "a " * 40]
    options = {"padding": "max_length", "truncation": True}
    assert loaded(captions, **options).input_ids == tokenizer(captions, **options).input_ids
    assert loaded.model_max_length == 24
    assert (loaded.pad_token_id, loaded.bos_token_id, loaded.unk_token_id, loaded.eos_token_id) == (
        0,
        1,
        2,
        3,
    )


def test_kinds_without_words_become_unknown_and_no_other_id_moves():
    everything, core = build_tokenizer(), build_tokenizer(kinds=("apple", "penguin"))
    known = "two green apples and a penguin in the snow"
    assert core(known).input_ids == everything(known).input_ids
    for word in ("sofa", "couches", "puppies", "sheep", "mug"):
        assert core(word).input_ids == [1, 2, 3]
        assert everything(word).input_ids != [1, 2, 3]
