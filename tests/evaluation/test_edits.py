"""The exact edits: what they lead to has not been seen in training, and one toy differs."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from rewardsds.evaluation.edits import ExactEdit, make_edits, write_edits
from rewardsds.toybox.captions import benchmark_prompts, describe, embedded_kinds, parse, split_of


@pytest.fixture(scope="module")
def edits() -> list[ExactEdit]:
    return make_edits(12, "test", embedded_kinds())


def test_edits_lead_to_the_benchmark_prompts(edits: list[ExactEdit]) -> None:
    prompts = benchmark_prompts(12, split="test", kinds=embedded_kinds())
    assert [edit.target for edit in edits] == [parse(prompt).spec for prompt in prompts]
    assert {split_of(edit.target) for edit in edits} == {"test"}


def test_one_toy_is_recoloured_or_replaced_in_turns(edits: list[ExactEdit]) -> None:
    for index, edit in enumerate(edits):
        old, new = edit.source.groups, edit.target.groups
        assert old[1 - edit.changed] == new[1 - edit.changed]
        old, new = old[edit.changed], new[edit.changed]
        recoloured = old.colour != new.colour, old.kind != new.kind
        assert recoloured == ((True, False) if index % 2 == 0 else (False, True))


def test_a_recoloured_toy_differs_only_inside_the_mask(edits: list[ExactEdit]) -> None:
    for edit in edits[::2]:
        change = (edit.before - edit.after).abs().amax(0)
        assert (change * (1 - edit.mask)).max() == 0
        assert (change * edit.mask).max() > 0.1


def test_the_pictures_of_a_comparison_show_the_source(tmp_path: Path, edits: list[ExactEdit]) -> None:
    written = write_edits(2, tmp_path)
    assert [(source, target) for _, source, target in written] == [
        (describe(edit.source), describe(edit.target)) for edit in edits[:2]
    ]
    assert {Image.open(path).size for path, _, _ in written} == {(64, 64)}
    assert write_edits(2, tmp_path) == written
    assert sorted(tmp_path.iterdir()) == sorted(path for path, _, _ in written)
