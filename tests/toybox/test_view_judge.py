"""Sides by hand, and the packaged judge of views on true pictures that it has never seen."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from rewardsds.evaluation.janus import from_sides
from rewardsds.scenes.cameras import orbit
from rewardsds.toybox.data import generate
from rewardsds.toybox.render import render
from rewardsds.toybox.specification import Group, SceneSpec
from rewardsds.toybox.train.view_judge import largest_toys, sides
from rewardsds.toybox.view_judge import SIDES, ViewJudgeNetwork, load_view_judge, save_view_judge, side_of
from rewardsds.toybox.world import build


@pytest.mark.parametrize(
    ("degrees", "side"),
    [
        (0, "front"),
        (44, "front"),
        (46, "left"),
        (90, "left"),
        (180, "back"),
        (-180, "back"),
        (-90, "right"),
        (270, "right"),
        (316, "front"),
        (-400, "front"),
    ],
)
def test_side_of_an_azimuth(degrees: float, side: str):
    assert SIDES[side_of(math.radians(degrees))] == side


def test_sides_of_a_data_set_follow_camera_and_toy(tmp_path):
    """View 4 is within 50° of the scene's front; toys are turned away from it by their own yaw."""
    data = generate(tmp_path / "data", 24, seed=3, kinds=("car", "dog"))
    scenes = np.arange(24)
    views = np.full(24, 4)
    toys, asked = largest_toys(data, scenes, views)
    assert asked.all()
    found = sides(data, scenes, views, toys)
    for scene, toy, side in zip(scenes, toys, found):
        x, y = data.poses[scene, 4, :2, 3]
        seen_from = math.degrees(math.atan2(y, x) - data.scenes[scene]["yaws"][toy])
        assert abs((seen_from - 90 * int(side) + 180) % 360 - 180) <= 45.001
    assert len(set(found.tolist())) >= 2


def test_weights_go_out_and_in_again(tmp_path):
    torch.manual_seed(0)
    network = ViewJudgeNetwork(8).eval()
    save_view_judge(network, tmp_path / "judge", ["car"])
    judge = load_view_judge(tmp_path / "judge")
    images = torch.rand(2, 3, 3, 64, 64)
    found = judge.probabilities(images)
    assert found.shape == (2, 3, 4)
    torch.testing.assert_close(found.sum(-1), torch.ones(2, 3))
    torch.testing.assert_close(found[1], network(images[1]).softmax(-1), atol=2e-3, rtol=1e-2)
    assert judge.kinds == ("car",)


def test_no_judge_is_told(tmp_path):
    with pytest.raises(ValueError, match="--stage view-judge"):
        load_view_judge(tmp_path)


def test_pictures_of_another_shape_are_refused(tmp_path):
    save_view_judge(ViewJudgeNetwork(8), tmp_path / "judge")
    with pytest.raises(ValueError, match=r"got \(4, 64, 64\)"):
        load_view_judge(tmp_path / "judge").probabilities(torch.rand(4, 64, 64))


def turntable(kind: str, seed: int, turned_back: bool = False) -> tuple[torch.Tensor, float]:
    """24 true pictures around a toy, and its yaw; with `turned_back` those from behind show its front again."""
    scene = build(SceneSpec((Group(kind, "red"),)), np.random.default_rng(seed))
    azimuth = torch.arange(24) * (2 * math.pi / 24)
    if turned_back:
        behind = torch.cos(azimuth - scene.toys[0].yaw) < 0
        azimuth = torch.where(behind, azimuth + math.pi, azimuth)
    fov = torch.tensor(math.radians(40.0))
    cameras = orbit(azimuth, torch.tensor(0.25), 1 / torch.tan(fov / 2), fov)
    pictures = render(
        [scene], np.zeros(24, int), cameras.camera_to_world.numpy(), cameras.field_of_view.numpy(), 64
    )
    return torch.from_numpy(pictures.colour).permute(0, 3, 1, 2).float() / 255, scene.toys[0].yaw


def test_the_packaged_judge_counts_the_fronts_of_true_toys():
    judge = load_view_judge()
    assert len(judge.kinds) >= 3
    whole, doubled = [], []
    for kind in judge.kinds:
        for seed in (11, 12, 13):
            whole.append(from_sides(judge.probabilities(turntable(kind, seed)[0])))
            doubled.append(from_sides(judge.probabilities(turntable(kind, seed, turned_back=True)[0])))
    right = sum(found.fronts == 1 for found in whole)
    assert right >= 0.8 * len(whole)
    assert sum(found.fronts >= 2 for found in doubled) >= 0.8 * len(doubled)
    assert np.mean([found.back_as_front for found in whole]) < 0.15
    assert np.mean([found.back_as_front for found in doubled]) > 0.6
