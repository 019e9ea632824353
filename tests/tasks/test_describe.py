"""`rewardsds settings`: a file that says what every setting means and that can be given back."""

from __future__ import annotations

from typing import Any

import pytest
import yaml

from rewardsds.tasks.describe import describe
from rewardsds.tasks.run import settings_from
from rewardsds.tasks.settings import DistillationSettings, EditSettings, TextTo3DSettings, TextToImageSettings

NEEDED: dict[type[DistillationSettings], dict[str, Any]] = {
    TextToImageSettings: {"prompt": "a red cube"},
    TextTo3DSettings: {"prompt": "a red cube"},
    EditSettings: {"picture": "a.png", "source": "a red cube", "target": "a blue cube"},
}


@pytest.mark.parametrize("task", NEEDED)
def test_what_is_printed_is_what_counts_without_it(task: type[DistillationSettings]) -> None:
    values = yaml.safe_load(describe(task))
    assert settings_from({**values, **NEEDED[task]}) == task(**NEEDED[task])
    assert settings_from(yaml.safe_load(describe(task, NEEDED[task]))) == task(**NEEDED[task])


def test_meaning_bounds_and_gaps_are_told() -> None:
    text = describe(TextTo3DSettings, {"vsd": {"rank": 8}})
    lines = text.splitlines()
    place = lines.index("candidates: 4")
    assert lines[place - 1].startswith("# N: noises tried at a step.")
    assert lines[place - 1].endswith("[whole number ≥ 1, ≤ 1024]")
    assert "# prompt: (needed)" in lines
    assert "  rank: 8" in lines
    assert "[none, random, softmax, best, best-worst, rank, advantage]" in " ".join(
        text.replace("#", "").split()
    )


@pytest.mark.parametrize("task", NEEDED)
def test_every_setting_says_what_it_is(task: type[DistillationSettings]) -> None:
    def check(kind, where: str) -> None:
        for name, field in kind.model_fields.items():
            assert field.description, f"{where}{name}"
            if hasattr(field.annotation, "model_fields"):
                check(field.annotation, f"{where}{name}.")

    check(task, f"{task.task} ")
