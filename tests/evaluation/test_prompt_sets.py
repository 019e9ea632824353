"""Sets of prompts by name, and the files that published benchmarks come in."""

from __future__ import annotations

import json

import pytest

from rewardsds.errors import SettingsError
from rewardsds.evaluation.prompt_sets import read_prompts
from rewardsds.priors.load import load_prior
from rewardsds.toybox.captions import embedded_kinds, known_kinds, parse, split_of

DRAWBENCH = """Prompts,Category
A red colored car.,Colors
"A pink colored giraffe, and a car.",Colors
Hovering cow abducting aliens.,Conflicting
"""
COCO = {
    "images": [{"id": 7}, {"id": 9}],
    "annotations": [
        {"image_id": 7, "id": 1, "caption": "A bicycle replica with a clock as the front wheel. "},
        {"image_id": 9, "id": 2, "caption": "A room with blue walls."},
        {"image_id": 7, "id": 3, "caption": "The bike has a clock as a tire."},
    ],
}


def test_the_papers_prompts():
    prompts = read_prompts("paper")
    assert len(prompts) == len(set(prompts)) == 22
    assert "A penguin with a brown bag in the snow" in prompts


@pytest.mark.parametrize("split", ["validation", "test"])
def test_toybox_sets_hold_pairs_that_are_never_trained_on(split: str):
    prompts = read_prompts(f"toybox:{split}:25")
    assert len(set(prompts)) == 25
    assert read_prompts(f"toybox:{split}")[:25] == prompts
    for prompt in prompts:
        parsed = parse(prompt, known_kinds(load_prior("toybox", "cpu")))
        assert parsed.spec is not None
        assert not parsed.notes
        assert split_of(parsed.spec) == split


def test_kinds_of_the_embedded_prior_without_loading_it():
    assert embedded_kinds() == known_kinds(load_prior("toybox", "cpu"))


@pytest.mark.parametrize(
    "name, text, expected",
    [
        ("t3bench.txt", "\ufeffA cat\n\n# a comment\n  A  dog  \nA cat\n", ["A cat", "A dog", "A cat"]),
        (
            "drawbench.csv",
            DRAWBENCH,
            [
                "A red colored car.",
                "A pink colored giraffe, and a car.",
                "Hovering cow abducting aliens.",
            ],
        ),
        ("a.tsv", "id\tCaption\n1\tA cat, asleep\n", ["A cat, asleep"]),
        ("captions_val2014.json", json.dumps(COCO), [
            "A bicycle replica with a clock as the front wheel.", "A room with blue walls."
        ]),
        ("list.json", '["A cat", "A dog"]', ["A cat", "A dog"]),
        ("named.json", '{"prompts": ["A cat"]}', ["A cat"]),
        ("mappings.json", '[{"id": 1, "Prompt": "A cat"}, {"id": 2, "Prompt": "A dog"}]', ["A cat", "A dog"]),
        ("lines.jsonl", '{"text": "A cat"}\n\n"A dog"\n', ["A cat", "A dog"]),
    ],
)  # fmt: skip
def test_files(tmp_path, name: str, text: str, expected: list[str]):
    (tmp_path / name).write_text(text, encoding="utf-8")
    assert read_prompts(tmp_path / name) == expected
    assert read_prompts(str(tmp_path / name)) == expected


@pytest.mark.parametrize(
    "name, text, told",
    [
        ("empty.txt", "# nothing\n\n", "holds no prompts"),
        ("columns.csv", "id,words\n1,a cat\n", "has no column of prompts.*it is id, words"),
        ("empty.csv", "", "it is empty"),
        ("broken.json", '["a cat"', "is no JSON"),
        ("blank.jsonl", '""\n{"text": " "}\n', "holds no prompts"),
        ("other.json", '{"a": 1}', "entry 1: expected a text under prompt.* it is '1'"),
        ("numbers.json", "[1, 2]", "entry 1: expected a text under prompt.* it is '1'"),
    ],
)
def test_files_without_prompts(tmp_path, name: str, text: str, told: str):
    (tmp_path / name).write_text(text, encoding="utf-8")
    with pytest.raises(SettingsError, match=told) as error:
        read_prompts(tmp_path / name)
    assert "\n" not in str(error.value)


def test_what_is_no_text(tmp_path):
    (tmp_path / "a.txt").write_bytes(b"\xff\xfe\x00\x81")
    with pytest.raises(SettingsError, match="cannot read the prompts"):
        read_prompts(tmp_path / "a.txt")
    with pytest.raises(SettingsError, match="cannot read the prompts"):
        read_prompts(tmp_path)


@pytest.mark.parametrize(
    "name, told",
    [
        ("toybox", "expected toybox:test"),
        ("toybox:tset:3", "expected toybox:test"),
        ("toybox:test:0", "at least 1"),
        ("toybox:test:100000", "100000 were asked for"),
        ("drawbench", "no such file; expected a file"),
    ],
)
def test_sets_that_are_not_there(name: str, told: str):
    with pytest.raises(SettingsError, match=told):
        read_prompts(name)
