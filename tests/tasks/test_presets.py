"""Presets: the paper's own figures, and how they go together with what the user says."""

from __future__ import annotations

from typing import Any

import pytest
import yaml

from rewardsds.cli import main
from rewardsds.tasks.presets import PRESETS, PresetName, preset
from rewardsds.tasks.settings import DistillationSettings, EditSettings, TextTo3DSettings, TextToImageSettings

GIVEN: dict[type[DistillationSettings], dict[str, Any]] = {
    TextToImageSettings: {"prompt": "a red cube"},
    TextTo3DSettings: {"prompt": "a red cube"},
    EditSettings: {"picture": "a.png", "source": "a red cube", "target": "a blue cube"},
}


@pytest.mark.parametrize("name", PRESETS)
@pytest.mark.parametrize("task", GIVEN)
def test_every_preset_is_made_of_settings(name: PresetName, task: type[DistillationSettings]) -> None:
    values = preset(name, task)
    settings = task(**GIVEN[task], **values)
    for key, value in values.items():
        assert getattr(settings, key) == value


@pytest.mark.parametrize(
    "name, candidates, share, rollout_steps",
    [("small", 2, 0.1, 1), ("medium", 5, 0.5, 8), ("large", 10, 1, 15)],
)
def test_effort_is_that_of_figure_9(
    name: PresetName, candidates: int, share: float, rollout_steps: int
) -> None:
    settings = TextToImageSettings(prompt="a red cube", **preset(name, TextToImageSettings))
    assert settings.reward_steps is not None
    assert (settings.candidates, settings.rollout_steps) == (candidates, rollout_steps)
    assert settings.reward_steps / settings.steps == pytest.approx(share)


def test_the_papers_values() -> None:
    image = TextToImageSettings(prompt="a red cube", **preset("paper", TextToImageSettings))
    assert (image.candidates, image.reward_steps, image.rollout_steps, image.steps) == (10, 1000, 15, 1000)
    assert (image.weighting, image.weighting_k, image.learning_rate) == ("best-worst", 2, 0.01)
    assert (image.guidance_scale, image.t_range_start, image.t_range_end) == (100, (0.02, 0.98), (0.02, 0.98))
    edit = EditSettings(**GIVEN[EditSettings], **preset("paper", EditSettings))
    assert (edit.candidates, edit.reward_steps, edit.rollout_steps, edit.steps) == (5, 200, 1, 200)
    object_ = TextTo3DSettings(prompt="a red cube", **preset("paper", TextTo3DSettings))
    assert (object_.candidates, object_.weighting_k, object_.loss) == (7, 2, "recon")
    assert (object_.steps, object_.reward_steps, object_.t_anneal_steps) == (10_000, 7_000, 8_000)
    assert (object_.guidance_scale, object_.guidance_rescale) == (50, 0.5)
    assert (object_.t_range_start, object_.t_range_end) == ((0.98, 0.98), (0.02, 0.5))


def test_a_settings_file_counts_before_a_preset(tmp_path, capsys: pytest.CaptureFixture[str]) -> None:
    own = tmp_path / "own.yaml"
    own.write_text("candidates: 6\n")
    assert main(["settings", "image", "--preset", "large", "--config", str(own)]) == 0
    values = yaml.safe_load(capsys.readouterr().out)
    assert (values["candidates"], values["rollout_steps"]) == (6, 15)
