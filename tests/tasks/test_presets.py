"""Presets: the paper's own figures, and how they go together with what the user says."""

from __future__ import annotations

import json
import logging
import math
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from rewardsds.cli import main
from rewardsds.evaluation.plan import make_plan
from rewardsds.priors.load import load_prior
from rewardsds.runs.loop import RunResult, make_optimizer
from rewardsds.runs.settings import to_yaml
from rewardsds.scenes.export import save_png
from rewardsds.scenes.gaussians.scene import GaussianScene
from rewardsds.scenes.gaussians.strategies import densify
from rewardsds.tasks.parts import known_negative, negative_notes
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
    if name in ("dreamgaussian", "texture") and task is not TextTo3DSettings:
        with pytest.raises(ValueError, match=f"is for 3d, not for {task.task}"):
            preset(name, task)
        return
    values = preset(name, task)
    start = {"init": Path("a.glb")} if name == "texture" else {}
    settings = task(**GIVEN[task], **start, **values)
    for key, value in values.items():
        found = getattr(settings, key)
        if isinstance(value, dict):
            assert {name: getattr(found, name) for name in value} == value
        else:
            assert found == value


@pytest.mark.parametrize(
    "name, candidates, share, rollout_steps",
    [("small", 2, 0.1, 1), ("medium", 5, 0.5, 8), ("large", 10, 1, 15)],
)
def test_effort_is_that_of_figure_9(
    name: PresetName, candidates: int, share: float, rollout_steps: int
) -> None:
    for steps in (20, 160):
        settings = TextToImageSettings(
            prompt="a red cube", steps=steps, **preset(name, TextToImageSettings)
        ).resolved()
        assert (settings.candidates, settings.rollout_steps) == (candidates, rollout_steps)
        assert settings.reward_steps == share * steps


@pytest.mark.parametrize(
    "arguments, steps, count",
    [
        ([], 160, 80),
        (["--steps", "50"], 50, 25),
        (["--steps", "50", "--reward-steps", "40"], 50, 40),
        (["--steps", "50", "--reward-steps", "10%"], 50, 5),
        (["--steps", "50", "--reward-steps", "None"], 50, None),
    ],
)
def test_k_follows_the_steps_that_a_run_has(
    arguments: list[str],
    steps: int,
    count: int | None,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What settings.yaml says is the number, whatever the settings said."""
    written: list[str] = []

    def no_run(settings: DistillationSettings, **others: Any) -> Any:
        written.append(to_yaml(settings.resolved()))
        return RunResult(tmp_path)

    monkeypatch.setattr("rewardsds.tasks.run.run", no_run)
    own = tmp_path / "own.yaml"
    own.write_text("candidates: 6\n")
    given = ["image", "a red cube", "--preset", "medium", "--config", str(own), *arguments]
    assert main(given) == 0
    values = yaml.safe_load(written[0])
    assert (values["steps"], values["reward_steps"], values["candidates"]) == (steps, count, 6)


def test_plans_count_k_too() -> None:
    """A share and the number that it comes to are the same run."""
    by_preset = {"preset": "medium"}
    by_hand = {"candidates": 5, "rollout_steps": 8, "weighting_k": 2, "reward_steps": 20}
    methods = {"preset": by_preset, "hand": by_hand, "more": {**by_preset, "reward_steps": "75%"}}
    plan = make_plan({"prompts": ["a red cube"], "settings": {"steps": 40}, "methods": methods})
    made = {name: plan.settings_of(method, prompt="a red cube") for name, method in plan.methods.items()}
    assert made["preset"] == made["hand"]
    assert made["more"].reward_steps == 30


def test_the_papers_values() -> None:
    image = TextToImageSettings(prompt="a red cube", **preset("paper", TextToImageSettings)).resolved()
    assert (image.candidates, image.reward_steps, image.rollout_steps, image.steps) == (10, 1000, 15, 1000)
    assert (image.weighting, image.weighting_k, image.learning_rate) == ("best-worst", 2, 0.01)
    assert (image.guidance_scale, image.t_range_start, image.t_range_end) == (100, (0.02, 0.98), (0.02, 0.98))
    edit = EditSettings(**GIVEN[EditSettings], **preset("paper", EditSettings)).resolved()
    assert (edit.candidates, edit.reward_steps, edit.rollout_steps, edit.steps) == (5, 200, 1, 200)
    object_ = TextTo3DSettings(prompt="a red cube", **preset("paper", TextTo3DSettings)).resolved()
    assert (object_.candidates, object_.weighting_k, object_.loss) == (7, 2, "recon")
    assert (object_.steps, object_.reward_steps, object_.t_anneal_steps) == (10_000, 7_000, 8_000)
    assert (object_.guidance_scale, object_.guidance_rescale) == (50, 0.5)
    assert (object_.t_range_start, object_.t_range_end) == ((0.98, 0.98), (0.02, 0.5))


def test_mvdreams_values() -> None:
    """Of configs/mvdream-sd21.yaml in threestudio-mvdream."""
    settings = TextTo3DSettings(prompt="a red cube", **preset("paper", TextTo3DSettings))
    camera, nerf = settings.camera, settings.nerf
    assert settings.backbone == "nerf"
    assert [camera.groups_at(step) * camera.views for step in (0, 4_999, 5_000)] == [8, 8, 4]
    assert [camera.resolution_at(step) for step in (0, 4_999, 5_000)] == [64, 64, 256]
    assert (camera.field_of_view, camera.elevation, camera.relative_distance) == (
        (15, 60),
        (0, 30),
        (0.8, 1.0),
    )
    assert (nerf.levels, nerf.features, nerf.log2_table, nerf.base_resolution) == (16, 2, 19, 16)
    assert nerf.base_resolution * nerf.growth ** (nerf.levels - 1) == pytest.approx(4096)
    assert (nerf.blob, nerf.blob_scale, nerf.blob_radius, nerf.samples_per_ray) == ("linear", 10, 0.5, 296)
    assert (nerf.grid_learning_rate, nerf.network_learning_rate, nerf.weight_decay) == (0.01, 0.001, 0.01)
    assert (nerf.neurons, nerf.hidden_layers, nerf.environment) == (64, 1, True)
    # threestudio's samples are evenly along the diagonal of the cube, 512 of them
    assert 2 / nerf.samples_per_ray == pytest.approx(2 * math.sqrt(3) / 512, rel=2e-3)
    assert settings.negative_prompt.startswith(
        "ugly, bad anatomy, blurry, pixelated obscure, unnatural colors"
    )
    assert settings.negative_prompt.endswith("poorly drawn face, deformed, dehydrated, bad proportions")
    assert len(settings.negative_prompt.split(", ")) == 19
    assert camera.elevation_draw == "mixed"


def test_a_settings_file_changes_only_what_it_names_of_a_group(
    tmp_path, capsys: pytest.CaptureFixture[str]
) -> None:
    own = tmp_path / "own.yaml"
    own.write_text("camera: {views: 2}\nnerf: {levels: 4}\n")
    assert main(["settings", "3d", "--preset", "paper", "--config", str(own)]) == 0
    values = yaml.safe_load(capsys.readouterr().out)
    assert (values["camera"]["views"], values["camera"]["milestones"]) == (2, [5_000])
    assert (values["nerf"]["levels"], values["nerf"]["log2_table"]) == (4, 19)


def test_a_settings_file_counts_before_a_preset(tmp_path, capsys: pytest.CaptureFixture[str]) -> None:
    own = tmp_path / "own.yaml"
    own.write_text("candidates: 6\n")
    assert main(["settings", "image", "--preset", "large", "--config", str(own)]) == 0
    values = yaml.safe_load(capsys.readouterr().out)
    assert (values["candidates"], values["rollout_steps"]) == (6, 15)


def test_dreamgaussians_schedule() -> None:
    """Figures of its paper and its public configuration; lengths are world units, as its cameras stand 2.5 away."""
    settings = TextTo3DSettings(prompt="a red cube", **preset("dreamgaussian", TextTo3DSettings))
    camera, gaussians = settings.camera, settings.gaussians
    assert [camera.resolution_at(step) for step in (0, 149, 150, 299, 300, 499)] == [
        128,
        128,
        256,
        256,
        512,
        512,
    ]
    half = math.tan(math.radians(camera.resolved_field_of_view[0] / 2))
    assert camera.relative_distance[0] / half == pytest.approx(2.5, abs=2e-3)
    assert (gaussians.initial_gaussians, gaussians.initial_radius, gaussians.prune_opacity) == (
        5000,
        0.5,
        0.01,
    )
    assert gaussians.means_final_learning_rate / gaussians.means_learning_rate == pytest.approx(0.02)
    # the public configuration: the degree-0 harmonic (0.282) learns at 0.01; a logit at 0 moves a colour by a quarter
    assert gaussians.colours_learning_rate / 4 == pytest.approx(0.01 * 0.28209, rel=0.01)
    assert (settings.steps, settings.resolved_reward_steps) == (500, 350)
    assert settings.t_range_start == (0.98, 0.98)
    # main.py gives an extent of 4, text_mv.yaml a share of 0.01 of it; a tenth of it is pruned
    assert (gaussians.split_scale, gaussians.prune_scale) == (0.04, 0.4)
    assert (gaussians.opacity_reset_every, gaussians.resolved_opacity_reset) == (700, 0.01)
    assert (gaussians.beta2, gaussians.epsilon) == (0.999, 1e-15)
    assert settings.negative_prompt == preset("paper", TextTo3DSettings)["negative_prompt"]
    # guidance/mvdream_utils.py: its gradient is the residual itself
    assert settings.timestep_weight == "uniform"


@pytest.mark.parametrize("loss, fits", [("sds", True), ("vsd", True), ("recon", False), ("refine", False)])
def test_losses_that_compare_pictures_keep_their_timestep_weight(loss: Any, fits: bool) -> None:
    if fits:
        settings = TextToImageSettings(prompt="a red cube", loss=loss, timestep_weight="fantasia3d")
        assert settings.timestep_weight == "fantasia3d"
        return
    with pytest.raises(ValueError, match=f"is fantasia3d, but the loss {loss} compares pictures"):
        TextToImageSettings(prompt="a red cube", loss=loss, timestep_weight="fantasia3d")


@pytest.mark.parametrize("task", ["image", "edit"])
def test_a_timestep_weight_reaches_the_step(
    task: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With one timestep it only scales the gradient: by σ², which is variance's, or by 1."""
    norms = {}
    save_png(torch.full((3, 64, 64), 0.5), tmp_path / "grey.png")
    for weight in ("auto", "variance", "uniform"):
        folder = tmp_path / weight
        given = ["a red cube"] if task == "image" else [str(tmp_path / "grey.png"), "--source", "a red cube"]
        given += [] if task == "image" else ["--target", "a blue cube"]
        options = ["--weighting", "none", "--steps", "1", "--timestep-weight", weight, "--out", str(folder)]
        ranges = ["--t-range-start", "0.5", "0.5", "--t-range-end", "0.5", "0.5"]
        assert main([task, *given, *options, *ranges]) == 0
        line = json.loads((folder / "metrics.jsonl").read_text().splitlines()[0])
        norms[weight] = line["gradient_norm"][0]
    [t] = line["timesteps"]
    variance = 1 - float(load_prior("toybox", "cpu").alphas_cumprod[t])
    assert norms["auto"] == norms["variance"]
    assert norms["variance"] == pytest.approx(variance * norms["uniform"], rel=1e-4)


def test_dreamgaussian_clones_every_gaussian_at_first() -> None:
    settings = TextTo3DSettings(prompt="a red cube", **preset("dreamgaussian", TextTo3DSettings))
    scene = GaussianScene([torch.Generator().manual_seed(0)], settings.gaussians, camera=settings.camera)
    before = scene.means.detach().clone()
    scene.gradient_sum, scene.gradient_count = torch.ones(5000), torch.ones(5000)
    optimizer = make_optimizer(scene)
    densify(scene, optimizer, torch.Generator().manual_seed(0))
    assert torch.equal(scene.means.detach(), torch.cat([before, before]))
    assert {(*group["betas"], group["eps"]) for group in optimizer.param_groups} == {(0.9, 0.999, 1e-15)}


@pytest.mark.parametrize("name", ["paper", "dreamgaussian"])
def test_what_the_toybox_does_not_know_of_a_presets_negative_prompt_is_left_out_in_silence(
    name: PresetName, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An own one is left out too, and that is told."""
    monkeypatch.setattr(logging.getLogger("transformers"), "propagate", True)
    prior = load_prior("toybox", "cpu")
    settings = TextTo3DSettings(prompt="a red cube", **preset(name, TextTo3DSettings))
    assert known_negative(settings, prior) == ""
    assert negative_notes(settings, prior) == []
    assert not caplog.records  # of a text too long, which is not read as one
    own = settings.model_copy(update={"negative_prompt": "a blue car, blurry"})
    assert known_negative(own, prior) == "a blue car"
    [note] = negative_notes(own, prior)
    assert "left out: blurry" in note
    known = settings.model_copy(update={"negative_prompt": "a  blue car,"})
    assert known_negative(known, prior) == "a  blue car,"
    assert negative_notes(known, prior) == []


def test_a_preset_with_groups_reaches_the_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["settings", "3d", "--preset", "dreamgaussian"]) == 0
    values = yaml.safe_load(capsys.readouterr().out)
    assert values["gaussians"]["densify_gradient"] == 0.04
    assert values["camera"]["resolution"] == [128, 256, 512]
    assert main(["settings", "image", "--preset", "dreamgaussian"]) != 0
    message = capsys.readouterr().err
    assert "is for 3d" in message
    assert "Traceback" not in message
