"""The toybox world: programs, layouts, renderer. The oracle is the signed distance itself."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from rewardsds.scenes.cameras import orbit
from rewardsds.toybox import data
from rewardsds.toybox.kinds import COLOUR_RGB, NATURAL_COLOURS, kinds
from rewardsds.toybox.render import GROUND, NO_TOY, render, signed_distance
from rewardsds.toybox.show import show
from rewardsds.toybox.specification import COLOURS, KINDS, Group, SceneSpec
from rewardsds.toybox.world import Toy, ToyScene, build, kind_bounds


def _cameras(azimuths: list[float], elevation: float = 15.0, fov: float = 40.0):
    azimuth = torch.deg2rad(torch.tensor(azimuths))
    angle = torch.full_like(azimuth, math.radians(fov))
    return orbit(
        azimuth, torch.full_like(azimuth, math.radians(elevation)), 1.0 / torch.tan(0.5 * angle), angle
    )


def _render(scene: ToyScene, azimuths: list[float], size: int = 48, **camera):
    cameras = _cameras(azimuths, **camera)
    views = np.zeros(len(azimuths), np.int64)
    return render(
        [scene], views, cameras.camera_to_world.numpy(), cameras.field_of_view.numpy(), size
    ), cameras


def test_every_kind_and_colour_has_a_description():
    assert len(KINDS) >= 24
    assert len(COLOURS) == 11
    assert [kind.name for kind in kinds()] == list(KINDS)
    assert set(COLOUR_RGB) == set(COLOURS)
    assert set(NATURAL_COLOURS) == set(KINDS)
    assert {colour for colours in NATURAL_COLOURS.values() for colour in colours} <= set(COLOURS)


@pytest.mark.parametrize("kind", KINDS)
def test_toys_stand_on_the_ground_and_are_about_one_unit_large(kind: str):
    low, high, radius = kind_bounds(kind)
    assert -0.06 < low[2] < 0.15
    assert 0.4 < (high - low).max() < 1.6
    assert 0.5 * np.linalg.norm(high - low) >= radius > 0.5 * (high - low).max() - 0.05


def test_a_lone_sphere_is_drawn_where_perspective_geometry_says():
    # The ball's own radius is 0.44 and its centre 0.44 above its base.
    toy = Toy("ball", "red", (0.8, 0.1, 0.1), position=(0.0, 0.0, -0.44), size=1.0)
    scene = ToyScene((toy,))
    size = 96
    pictures, cameras = _render(scene, [0.0, 130.0], size=size, elevation=0.0)
    distance = float(cameras.camera_to_world[0, :3, 3].norm())
    apparent = 0.44 / math.sqrt(distance**2 - 0.44**2)  # tangent of the silhouette's half angle
    pixels = math.pi * (apparent * 0.5 * size / math.tan(math.radians(20.0))) ** 2
    for view in range(2):
        assert pictures.mask[view].sum() == pytest.approx(pixels, rel=0.02)
        centre = pictures.depth[view, size // 2, size // 2]
        assert centre == pytest.approx(distance - 0.44, abs=0.01)


@pytest.mark.parametrize("seed", range(6))
def test_masks_and_depths_agree_with_the_signed_distance(seed: int):
    rng = np.random.default_rng(seed)
    kinds_drawn = rng.choice(KINDS, 2, replace=False)
    spec = SceneSpec((Group(str(kinds_drawn[0])), Group(str(kinds_drawn[1]))), ("and",))
    scene = build(spec, rng)
    size = 40
    pictures, cameras = _render(scene, [20.0], size=size)
    pose = cameras.camera_to_world[0].numpy()
    focal = 0.5 * size / math.tan(math.radians(20.0))
    grid = (np.arange(size) + 0.5 - 0.5 * size) / focal
    x, y = np.meshgrid(grid, -grid)
    directions = np.stack([x, y, -np.ones_like(x)], -1) @ pose[:3, :3].T
    directions /= np.linalg.norm(directions, axis=-1, keepdims=True)
    origin = pose[:3, 3]
    # A dense march along every ray: the smallest signed distance tells whether the ray meets a toy.
    steps = np.linspace(float(np.linalg.norm(origin)) - 1.3, float(np.linalg.norm(origin)) + 1.3, 400)
    closest = np.full((size, size), np.inf, np.float32)
    for step in steps:
        points = (origin + directions * step).reshape(-1, 3).astype(np.float32)
        closest = np.minimum(closest, signed_distance(scene, points)[0].reshape(size, size))
    drawn = pictures.toy[0] >= 0
    assert drawn[closest < -0.02].all()
    assert not drawn[closest > 0.02].any()
    hits = (origin + directions * np.where(drawn, pictures.depth[0], 0)[..., None])[drawn]
    distance, toy = signed_distance(scene, hits.astype(np.float32))
    assert np.abs(distance).max() < 0.01
    assert (toy == pictures.toy[0][drawn]).mean() > 0.98


def test_ground_is_a_disc_that_hides_what_is_below_and_carries_a_shadow():
    rng = np.random.default_rng(3)
    scene = build(SceneSpec((Group("cube", "red"),), (), "snow"), rng)
    pictures, _ = _render(scene, [0.0], size=64, elevation=35.0)
    ground = pictures.toy[0] == GROUND
    assert 0.05 < ground.mean() < 0.9
    assert (pictures.toy[0] == NO_TOY).any()
    brightness = pictures.colour[0].mean(-1)[ground]
    assert brightness.max() > 1.25 * brightness.min()  # part of the disc lies in shadow
    lit = build(SceneSpec((Group("cube", "red"),), (), "none"), rng)
    pictures, _ = _render(lit, [0.0])
    assert not (pictures.toy == GROUND).any()


def test_front_back_left_and_right():
    # A penguin's white belly is in front; what stands on the left is left in the picture from the front.
    scene = build(SceneSpec((Group("penguin"),)), np.random.default_rng(0))
    pictures, _ = _render(scene, [0.0, 180.0])
    toy = pictures.toy == 0
    white = [(pictures.colour[v][toy[v]].min(-1) > 150).mean() for v in range(2)]
    assert white[0] > 0.15 > white[1]

    for relation, sign in (("left of", -1), ("right of", 1)):
        for seed in range(5):
            spec = SceneSpec((Group("banana"), Group("apple")), (relation,))  # type: ignore[arg-type]
            pictures, _ = _render(build(spec, np.random.default_rng(seed)), [0.0])
            columns = [np.nonzero(pictures.toy[0] == toy)[1].mean() for toy in (0, 1)]
            assert sign * (columns[0] - columns[1]) > 3


def test_stacks_hats_and_accessories():
    for seed in range(5):
        rng = np.random.default_rng(seed)
        upper, lower = build(SceneSpec((Group("apple"), Group("table")), ("on top of",)), rng).toys
        assert upper.kind == "apple"
        assert upper.position[2] == pytest.approx(lower.to_world((0, 0, 0.605))[2], abs=0.06)
        penguin, hat = build(SceneSpec((Group("penguin"), Group("hat", "red")), ("wearing",)), rng).toys
        assert hat.position[2] > penguin.to_world((0, 0, 0.8))[2]
        assert hat.size < penguin.size
        penguin, bag = build(SceneSpec((Group("penguin"), Group("bag")), ("with",)), rng).toys
        assert bag.position[2] == pytest.approx(penguin.position[2])
        assert bag.size < 0.8 * penguin.size


@pytest.mark.parametrize("seed", range(8))
def test_toys_of_a_row_do_not_run_into_each_other(seed: int):
    rng = np.random.default_rng(seed)
    names = [str(name) for name in rng.choice([k for k in KINDS if k != "hat"], 3, replace=False)]
    scene = build(SceneSpec(tuple(Group(name) for name in names), ("and", "and")), rng)
    axis = np.linspace(-1, 1, 50, dtype=np.float32)
    points = np.stack(np.meshgrid(axis, axis, axis, indexing="ij"), -1).reshape(-1, 3)
    inside = [signed_distance(ToyScene((toy,)), points)[0] < -0.03 for toy in scene.toys]
    overlap = np.sum(inside, axis=0)
    assert (overlap > 1).sum() <= 0.02 * (overlap > 0).sum()


def test_a_data_set_depends_on_its_seed_alone_and_holds_what_it_says(tmp_path):
    first = data.generate(tmp_path / "a", 6, seed=11)
    longer = data.generate(tmp_path / "b", 8, seed=11)
    other = data.generate(tmp_path / "c", 6, seed=12)
    assert (longer.views[:6] == first.views).all()
    assert (other.views != first.views).any()
    assert first.views.shape == (6, 5, 64, 64, 3)
    assert [scene["caption"] for scene in first.scenes] == [s["caption"] for s in longer.scenes[:6]]
    for index, scene in enumerate(first.scenes):
        assert len(scene["toys"]) == scene["spec"].toys
        for toy in range(len(scene["toys"])):
            assert first.visible[index, :, toy].max() > 0.005
        assert (first.visible[index, :, len(scene["toys"]) :] == 0).all()
        # Views 0–3 look from four directions at right angles to each other.
        positions = first.poses[index, :4, :2, 3]
        assert float(positions[0] @ positions[1]) == pytest.approx(0.0, abs=1e-4)
        assert np.allclose(positions[0], -positions[2], atol=1e-4)
    with pytest.raises(ValueError, match="already holds 6 scenes"):
        data.generate(tmp_path / "a", 7, seed=11)
    with pytest.raises(ValueError, match="not a complete toybox data set"):
        data.load(tmp_path)


def test_held_out_combinations_never_appear_in_training_scenes(tmp_path):
    from rewardsds.toybox.captions import split_of

    training = data.generate(tmp_path / "train", 60, seed=5)
    held_out = data.generate(tmp_path / "test", 20, seed=5, split="test")
    assert {split_of(scene["spec"]) for scene in training.scenes} == {"train"}
    several = [scene["spec"] for scene in held_out.scenes if len(scene["spec"].groups) > 1]
    assert several
    assert {split_of(spec) for spec in several} == {"test"}


def test_show_writes_a_contact_sheet(tmp_path):
    from PIL import Image

    path, notes = show("a dragon and a red apple", tmp_path / "sheet.png", scenes=2, size=32)
    assert notes == ["the toybox does not know: dragon"]
    sheet = np.asarray(Image.open(path).convert("RGB")).astype(int)
    assert sheet.shape[0] < sheet.shape[1]  # two rows of four
    red = (sheet[..., 0] > 1.8 * sheet[..., 1]) & (sheet[..., 0] > 60)
    assert red.mean() > 0.03
    with pytest.raises(ValueError, match="names no toy"):
        show("a dragon", tmp_path / "none.png")
