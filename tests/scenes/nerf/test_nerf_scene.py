"""The NeRF as a scene: what it renders, learns, keeps and refuses."""

from __future__ import annotations

import copy
import math
from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor

from rewardsds.errors import NotFiniteError
from rewardsds.runs import checkpoint
from rewardsds.scenes.base import Rendering
from rewardsds.scenes.cameras import Cameras, sample_orbit_group
from rewardsds.scenes.export import turntable_cameras
from rewardsds.scenes.nerf.scene import NeRFScene
from rewardsds.scenes.nerf.settings import NeRFSettings
from rewardsds.scenes.settings import BackgroundSettings, CameraSettings

SMALL = {
    "levels": 3,
    "occupancy_resolution": 16,
    "neurons": 16,
    "samples_per_ray": 48,
    "opacity_weight": 0.0,
}


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def make(
    seed: int = 0, background: BackgroundSettings | None = None, groups: int = 1, **settings
) -> NeRFScene:
    own = NeRFSettings.model_validate({**SMALL, **settings})
    camera = CameraSettings(resolution=(16,), groups=(groups,))
    return NeRFScene([generator(seed)], own, camera=camera, background=background)


def ball(density: float = 1e4, radius: float = 0.5, colour: float = 0.5, **settings) -> NeRFScene:
    """A scene whose networks are replaced by a ball of one density and grey level."""
    scene = make(**settings)
    grey = torch.full((3,), colour)
    anchor = scene.field.grid.table
    scene.field.density = lambda points, encoded=None: (  # type: ignore[method-assign]
        density * (points.norm(dim=-1) < radius).float() + 0 * anchor[0, 0]
    )
    scene.field.colour = lambda points, encoded=None: (  # type: ignore[method-assign]
        grey.expand(len(points), 3) + 0 * anchor[0, 0]
    )
    scene.occupancy.update(scene.density, 2 / 48, fresh=True)
    return scene


def images_of(rendering: Rendering) -> Tensor:
    assert rendering.images is not None
    return rendering.images


def parts_of(rendering: Rendering) -> tuple[Tensor, Tensor]:
    assert rendering.alpha is not None
    assert rendering.depth is not None
    return rendering.alpha, rendering.depth


def optimizer_of(scene: NeRFScene) -> torch.optim.Adam:
    return torch.optim.Adam(scene.parameter_groups(), betas=(0.9, 0.99))


def train(scene: NeRFScene, optimizer, g: torch.Generator, number: int) -> float:
    """One step towards the colour (0.2, 0.5, 0.8)."""
    scene.before_step(number, optimizer)
    rendering = scene.render(scene.sample_cameras([g], number), [g])
    loss = (images_of(rendering) - torch.tensor([0.2, 0.5, 0.8])[:, None, None]).square().sum()
    regularisation = scene.regularisation(rendering)
    total = loss if regularisation is None else loss + regularisation
    optimizer.zero_grad()
    total.backward()
    optimizer.step()
    scene.after_step(number, optimizer, [g])
    return float(loss.detach())


# --- seeing -------------------------------------------------------------------------------------------------


def test_shapes_of_groups_and_the_evaluation_background():
    scene = make(background=BackgroundSettings(evaluation=(0.9, 0.8, 0.7)), groups=2, blob_radius=0.2)
    cameras = scene.sample_cameras([generator()], 0)
    rendering = scene.render(cameras)
    assert images_of(rendering).shape == (2, 4, 3, 16, 16)
    alpha, depth = parts_of(rendering)
    assert alpha.shape == depth.shape == (2, 4, 1, 16, 16)
    assert rendering.penalty is None
    torch.testing.assert_close(
        images_of(rendering)[0, 0, :, 0, 0], torch.tensor([0.9, 0.8, 0.7]), atol=1e-3, rtol=0
    )
    assert images_of(scene.render(cameras, size=20)).shape == (2, 4, 3, 20, 20)
    training = scene.render(cameras, [generator()])
    assert training.penalty is not None
    assert training.penalty.shape == (2,)


def test_resolution_follows_the_milestones():
    camera = CameraSettings(resolution=(8, 12), milestones=(5,), groups=(2, 1))
    scene = NeRFScene([generator()], NeRFSettings.model_validate(SMALL), camera=camera)
    for step, shape in ((4, (2, 4, 3, 8, 8)), (5, (1, 4, 3, 12, 12))):
        scene.before_step(step, optimizer_of(scene))
        assert (
            images_of(scene.render(scene.sample_cameras([generator()], step), [generator()])).shape == shape
        )


def test_a_blob_too_high_for_its_density_is_told_as_such() -> None:
    with pytest.raises(ValueError, match="before any step: start again with a lower blob_scale"):
        make(blob_scale=1000.0, density_activation="exp")


def test_regularisers_do_not_grow_with_the_pictures() -> None:
    camera = CameraSettings(resolution=(16, 64), milestones=(5,))
    settings = NeRFSettings.model_validate({**SMALL, "opacity_weight": 1.0, "sparsity_weight": 1.0})
    scene = NeRFScene([generator()], settings, camera=camera)
    found = []
    for step in (4, 5):
        scene.before_step(step, optimizer_of(scene))
        rendering = scene.render(scene.sample_cameras([generator()], step), [generator()])
        term = scene.regularisation(rendering)
        assert term is not None
        found.append(term.item())
    assert found[1] == pytest.approx(found[0], rel=0.05)


def test_a_ball_looks_like_a_disc_of_the_right_size():
    """The outline of a ball of radius r, seen from distance d, has the angle asin(r / d)."""
    scene = ball(radius=0.5)
    cameras = turntable_cameras(1, elevation=0.0)
    alpha, depth = parts_of(scene.render(cameras, size=64))
    distance = float(cameras.camera_to_world[0, 0, :3, 3].norm())
    half = math.tan(0.5 * float(cameras.field_of_view[0, 0]))
    radius = 32 * math.tan(math.asin(0.5 / distance)) / half
    assert float(alpha.detach().sum()) == pytest.approx(math.pi * radius**2, rel=0.02)
    # seen along the axis, its surface is 0.5 nearer than the origin
    assert depth[0, 0, 0, 32, 32].item() == pytest.approx(distance - 0.5, abs=0.02)
    assert depth[0, 0, 0, 0, 0].item() == 0
    picture = images_of(scene.render(cameras, size=64))[0, 0]
    torch.testing.assert_close(picture[:, 32, 32], torch.full((3,), 0.5), atol=1e-3, rtol=0)


def test_depth_is_along_the_cameras_axis():
    """A wall that faces the camera has one depth, as with Gaussians, though rays to its edge are longer."""
    scene = ball()
    scene.field.density = lambda points, encoded=None: 1e4 * (points[:, 0] < 0.0).float()  # type: ignore
    scene.occupancy.update(scene.density, 2 / 48, fresh=True)
    cameras = turntable_cameras(1, elevation=0.0, field_of_view=70.0)
    alpha, depth = parts_of(scene.render(cameras, size=32))
    distance = float(cameras.camera_to_world[0, 0, :3, 3].norm())
    seen = depth[alpha > 0.99]
    assert len(seen) > 200
    assert (seen - distance).abs().max() < 0.03


def test_skipping_empty_space_and_hidden_samples_changes_nothing_visible():
    pictures = []
    cases: tuple[dict[str, Any], ...] = (
        {},
        {"early_stop": 0.0},
        {"occupancy_threshold": 0.0},
        {"samples_at_once": 4096},
    )
    for settings in cases:
        scene = make(blob_scale=12.0, density_activation="softplus", **settings)
        with torch.no_grad():
            pictures.append(images_of(scene.render(scene.sample_cameras([generator(1)], 0), size=32)))
    full, *others = pictures
    assert full.std() > 0.05
    # early_stop 1e-3 of the light, and threshold 0.01 of alpha, at the fringe of the blob
    assert (others[0] - full).abs().max() < 2e-3
    assert (others[1] - full).abs().mean() < 0.01
    torch.testing.assert_close(others[2], full, atol=1e-6, rtol=0)


def test_without_generators_pictures_are_always_the_same():
    scene = make()
    cameras = scene.sample_cameras([generator()], 0)
    first = scene.render_images(cameras, 24)
    scene.render(cameras, [generator(3)])
    assert torch.equal(scene.render_images(cameras, 24), first)
    with_gradient = images_of(scene.render(cameras, size=24))
    assert with_gradient.requires_grad
    torch.testing.assert_close(with_gradient.detach().clamp(0, 1), first, atol=1e-6, rtol=0)


def test_training_draws_from_its_generator_alone():
    scene = make()
    cameras = scene.sample_cameras([generator()], 0)
    a, b, other = (images_of(scene.render(cameras, [generator(seed)])) for seed in (5, 5, 6))
    assert torch.equal(a, b)
    assert not torch.equal(a, other)


def test_training_samples_average_to_the_evaluations_picture():
    plain = BackgroundSettings(augmentation=False)
    scene = make(background=plain, evaluation_samples_per_ray=480, early_stop=0)
    cameras = scene.sample_cameras([generator()], 0)
    g = generator(1)
    with torch.no_grad():
        mean = torch.stack([images_of(scene.render(cameras, [g])) for _ in range(30)]).mean(0)
        expected = images_of(scene.render(cameras))
    assert (mean - expected).abs().mean() < 0.005


def test_gradients_are_slopes():
    """Along random directions in all parameters, of a picture's sum."""
    scene = make(early_stop=0.0, occupancy_threshold=0.0, background=BackgroundSettings(augmentation=False))
    with torch.no_grad():
        scene.field.grid.table.mul_(1e3)
    scene.occupancy.occupied.fill_(True)
    cameras = scene.sample_cameras([generator()], 0)
    weights = torch.rand(1, 4, 3, 16, 16, generator=generator(1))
    parameters = [p for group in scene.parameter_groups() for p in group["params"]]

    def value() -> Tensor:
        return (images_of(scene.render(cameras, [generator(2)])).double() * weights).sum()

    slopes = torch.autograd.grad(value(), parameters)
    g = generator(3)
    for parameter, slope in zip(parameters, slopes):
        direction = slope / slope.norm() + 0.3 * torch.randn(slope.shape, generator=g) / slope.numel() ** 0.5
        step = 3e-3 * float(parameter.detach().norm() / direction.norm())
        with torch.no_grad():
            before = parameter.clone()
            parameter.copy_(before + step * direction)
            up = value()
            parameter.copy_(before - step * direction)
            down = value()
            parameter.copy_(before)
        expected = float((slope * direction).sum())
        assert float(up - down) / (2 * step) == pytest.approx(expected, rel=0.03)


def test_a_camera_that_sees_nothing_has_a_gradient_of_zero():
    scene = make()
    away = sample_orbit_group(generator(), field_of_view=(20.0, 20.0)).camera_to_world.clone()
    away[..., :3, 0] *= -1
    away[..., :3, 2] *= -1  # turned round
    rendering = scene.render(Cameras(away, torch.full((1, 4), 0.3)), [generator()])
    images_of(rendering).sum().backward()
    assert parts_of(rendering)[0].sum() == 0
    slope = scene.field.grid.table.grad
    assert slope is not None
    assert not slope.any()


def test_cameras_are_needed():
    with pytest.raises(ValueError, match=r"\(G, V\)"):
        make().render(None)
    with pytest.raises(ValueError, match="one item"):
        NeRFScene([generator(), generator()])


# --- background ---------------------------------------------------------------------------------------------


def corners(scene: NeRFScene, seeds: range, background=None) -> Tensor:
    """(S, G, V, 3) the top left pixel of training pictures."""
    cameras = scene.sample_cameras([generator()], 0)
    with torch.no_grad():
        return torch.stack(
            [
                images_of(scene.render(cameras, [generator(s)], background=background))[..., 0, 0]
                for s in seeds
            ]
        )


def test_training_backgrounds_vary_by_group():
    found = corners(make(groups=2, blob_radius=0.15), range(20))
    assert (found == found[:, :, :1]).all()  # a group's views share it
    assert (found[:, 0] != found[:, 1]).any(-1).all()
    assert found.min() >= 0.35 - 0.06


@pytest.mark.parametrize("probability", [0.0, 0.5, 1.0])
def test_the_environment_is_replaced_now_and_then(probability: float):
    scene = make(environment=True, environment_replacement=probability, blob_radius=0.15)
    seen = images_of(scene.render(scene.sample_cameras([generator()], 0)))[..., 0, 0]
    assert (seen[0, 0] - seen[0, 1]).abs().max() > 1e-4  # it depends on the direction
    found = corners(scene, range(40))
    shown = (found - seen).abs().amax((1, 2, 3)) < 1e-3
    assert shown.float().mean().item() == pytest.approx(
        1 - probability, abs=0.25 if probability == 0.5 else 0
    )


def test_a_given_background_replaces_the_environment():
    scene = make(environment=True, blob_radius=0.15)
    found = images_of(scene.render(scene.sample_cameras([generator()], 0), background=(0.1, 0.2, 0.3)))
    torch.testing.assert_close(found[0, 0, :, 0, 0], torch.tensor([0.1, 0.2, 0.3]), atol=1e-3, rtol=0)


# --- its shape ----------------------------------------------------------------------------------------------


def test_density_and_colour_of_points():
    scene = make()
    points = torch.tensor([[0.0, 0, 0], [0.9, 0, 0], [0.9, 0.9, 0], [3.0, 0, 0]])
    density = scene.density(points)
    assert not density.requires_grad
    assert density[0] > density[1] > 0
    assert density[2:].tolist() == [0, 0]
    assert scene.colour(points).shape == (4, 3)
    assert scene.density(torch.zeros(0, 3)).shape == (0,)


def sphere_points(count: int, radius: float) -> Tensor:
    return radius * torch.nn.functional.normalize(torch.randn(count, 3, generator=generator(9)), dim=-1)


@pytest.mark.parametrize("known", [True, False])
def test_it_starts_from_a_shape(known: bool):
    """A ball beside the origin, red above and blue below, from its surface alone or with what is inside."""
    middle = torch.tensor([0.2, 0.0, 0.1])
    points = sphere_points(4000, 0.4) + middle
    red, blue = torch.tensor([0.9, 0.1, 0.1]), torch.tensor([0.1, 0.1, 0.9])
    colours = torch.where(points[:, 2:] > 0.1, red, blue)
    scene = make(levels=6)
    inside = (lambda of: (of - middle).norm(dim=-1) < 0.4) if known else None
    scene.start_from(points, colours, inside, generator(1), steps=80)
    asked = 2 * torch.rand(4000, 3, generator=generator(2)) - 1
    distance = (asked - middle).norm(dim=-1)
    alpha = 1 - torch.exp(-scene.density(asked) * 2 / 48)
    sure = (distance < 0.37) | (distance > 0.44)
    assert ((alpha > 0.5) == (distance < 0.4))[sure].float().mean() > 0.97
    assert (1 - torch.exp(-scene.density(points) * 2 / 48)).median() > 0.3
    off = (points[:, 2] - 0.1).abs() > 0.1
    assert (scene.colour(points) - colours)[off].abs().mean() < 0.06
    # and it is seen: the cells that were found empty before are looked at anew
    alpha, _ = parts_of(scene.render(turntable_cameras(1), size=32))
    assert alpha.mean() > 0.08


@pytest.mark.parametrize(
    "points, colours, told",
    [
        (torch.zeros(0, 3), torch.zeros(0, 3), r"points \(M, 3\)"),
        (torch.zeros(5, 3), torch.zeros(4, 3), r"points \(M, 3\)"),
        (torch.full((5, 3), math.nan), torch.zeros(5, 3), "NaN"),
        (torch.full((5, 3), 2.0), torch.zeros(5, 3), "scale it to fit"),
    ],
)
def test_shapes_that_are_none(points: Tensor, colours: Tensor, told: str):
    with pytest.raises(ValueError, match=told):
        make().start_from(points, colours, None, generator(), steps=2)


def test_a_sheet_is_as_thick_as_a_sample():
    """A disc that encloses nothing, whether that is known or not, is seen from both sides and little from its edge."""
    angle, radius = torch.rand((2, 4000), generator=generator(3))
    across = 0.6 * radius.sqrt()
    points = torch.stack(
        [torch.zeros(4000), across * (6.2832 * angle).cos(), across * (6.2832 * angle).sin()], -1
    )
    for inside in (None, lambda of: of[:, 0] > 9):
        scene = make(levels=6)
        scene.start_from(
            points, points.new_tensor([0.9, 0.1, 0.1]).expand(4000, 3), inside, generator(), steps=80
        )
        asked = 2 * torch.rand(4000, 3, generator=generator(2)) - 1
        alpha = 1 - torch.exp(-scene.density(asked) * 2 / 48)
        assert (alpha[(asked[:, 0].abs() > 0.1) | (asked.norm(dim=-1) > 0.7)] < 0.5).float().mean() > 0.99
        assert (1 - torch.exp(-scene.density(points) * 2 / 48)).median() > 0.5
        assert (scene.colour(points)[:, 0] > 0.6).float().mean() > 0.9


# --- optimising ---------------------------------------------------------------------------------------------


def test_it_learns():
    background = BackgroundSettings(augmentation=False, evaluation=(0.2, 0.5, 0.8))
    scene = make(background=background, grid_learning_rate=0.03, network_learning_rate=0.006)
    g = generator(1)
    optimizer = optimizer_of(scene)
    losses = [train(scene, optimizer, g, number) for number in range(30)]
    assert losses[-1] < 0.5 * losses[0]


def test_groups_of_parameters():
    scene = make(environment=True, grid_learning_rate=0.5, network_learning_rate=0.25, weight_decay=0.125)
    groups = {group["name"]: group for group in scene.parameter_groups()}
    assert {name: group["lr"] for name, group in groups.items()} == {
        "grid": 0.5,
        "networks": 0.25,
        "environment": 0.001,
    }
    assert len({id(p) for group in groups.values() for p in group["params"]}) == 1 + 4 + 3


def test_weight_decay_is_adamws():
    """Without gradient each step takes off lr · decay of a weight, which Adam's own decay would not."""
    scene = make(weight_decay=0.1, network_learning_rate=0.01)
    optimizer = optimizer_of(scene)
    weight = scene.field.colour_network.layers[0]
    before = weight.detach().clone()
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    torch.testing.assert_close(weight.detach(), before * (1 - 0.01 * 0.1))


@pytest.mark.parametrize(
    "name", ["orientation_weight", "opacity_weight", "sparsity_weight", "z_variance_weight"]
)
def test_each_regulariser_follows_its_schedule_and_carries_gradient(name: str):
    schedule: dict[str, Any] = {name: (10, 0.0, 2.0, 20)}
    scene = make(blob_scale=12.0, density_activation="softplus", **schedule)
    cameras, optimizer = scene.sample_cameras([generator()], 0), optimizer_of(scene)
    found = []
    for step in (10, 15, 20):
        scene.before_step(step, optimizer)
        rendering = scene.render(cameras, [generator(1)])
        found.append(scene.regularisation(rendering))
    none, half, full = found
    assert none is None
    assert half.item() > 0
    assert full.item() == pytest.approx(2 * half.item(), rel=1e-4)
    full.backward()
    slope = scene.field.grid.table.grad
    assert slope is not None
    assert slope.any()


def test_regularisers_push_the_way_they_say():
    def after(**settings) -> NeRFScene:
        scene, g = (
            make(blob_scale=2.0, density_activation="softplus", grid_learning_rate=0.05, **settings),
            generator(1),
        )
        optimizer = optimizer_of(scene)
        for number in range(25):
            scene.before_step(number, optimizer)
            rendering = scene.render(scene.sample_cameras([g], number), [g])
            loss = 0.01 * images_of(rendering).square().mean() + (scene.regularisation(rendering) or 0)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        return scene

    def alpha(scene: NeRFScene) -> Tensor:
        return parts_of(scene.render(turntable_cameras(2), size=16))[0].detach()

    plain = alpha(after())
    assert alpha(after(sparsity_weight=1.0)).mean() < 0.8 * plain.mean()
    crisp = alpha(after(opacity_weight=1.0))
    assert (crisp * (1 - crisp)).mean() < 0.8 * (plain * (1 - plain)).mean()


def test_the_occupancy_grid_follows_on_schedule():
    scene, g = make(occupancy_every=3), generator(1)
    optimizer = optimizer_of(scene)
    seen = [scene.occupancy.values.clone()]
    for number in range(6):
        train(scene, optimizer, g, number)
        seen.append(scene.occupancy.values.clone())
    changed = [not torch.equal(a, b) for a, b in pairwise(seen)]
    assert changed == [False, False, True, False, False, True]


# --- keeping ------------------------------------------------------------------------------------------------


def test_resumed_runs_are_equal_to_the_bit():
    settings = {"environment": True, "occupancy_every": 2, "opacity_weight": 0.01, "orientation_weight": 0.01}
    scene, g = make(**settings), generator(1)
    optimizer = optimizer_of(scene)
    for number in range(3):
        train(scene, optimizer, g, number)

    class Nothing:
        def state_dict(self):
            return {}

        def load_state_dict(self, state): ...

    found = copy.deepcopy(checkpoint.capture(3, scene, Nothing(), optimizer, {"scene": [g]}))
    for number in range(3, 6):
        train(scene, optimizer, g, number)

    again, h = make(seed=8, **settings), generator(9)
    checkpoint.restore_scene(found, again)
    resumed = optimizer_of(again)
    checkpoint.restore(found, again, resumed, {"scene": [h]})
    for number in range(3, 6):
        train(again, resumed, h, number)
    assert scene.state_dict().keys() == again.state_dict().keys()
    for name, tensor in scene.state_dict().items():
        assert torch.equal(tensor, again.state_dict()[name]), name
    cameras = turntable_cameras(2)
    assert torch.equal(scene.render_images(cameras, 16), again.render_images(cameras, 16))


def test_equal_to_the_bit_when_run_twice():
    states = []
    for _ in range(2):
        scene, g = make(), generator(1)
        optimizer = optimizer_of(scene)
        for number in range(4):
            train(scene, optimizer, g, number)
        states.append(dict(scene.state_dict()))
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])


@pytest.mark.parametrize(
    "change, told",
    [
        (lambda state: state.pop("occupancy.values"), r"lacks occupancy\.values"),
        (lambda state: state.update(more=torch.zeros(1)), "has unknown more"),
        (lambda state: state.update({"field.grid.table": torch.zeros(3, 2)}), "these settings make it"),
        (lambda state: state["field.grid.table"].fill_(math.nan), "NaN"),
        (lambda state: state["occupancy.values"].zero_(), "has become empty"),
    ],
)
def test_states_that_do_not_fit(change, told: str):
    scene = make()
    state = {name: tensor.clone() for name, tensor in scene.state_dict().items()}
    change(state)
    with pytest.raises(ValueError, match=told):
        scene.load_state_dict(state)


def test_an_exploded_field_is_told():
    scene, g = make(occupancy_every=1), generator(1)
    optimizer = optimizer_of(scene)
    with torch.no_grad():
        scene.field.grid.table.fill_(math.nan)
    with pytest.raises(NotFiniteError, match="cannot be rendered"):
        scene.render_images(turntable_cameras(1), 16)
    with pytest.raises(NotFiniteError, match="lower learning rates"):
        scene.after_step(0, optimizer, [g])
