import copy
import json
import math
from pathlib import Path

import pytest
import torch
from gaussian_steps import generator, images_of, make, moments, step
from pydantic import ValidationError
from torch import Tensor

from rewardsds.runs import checkpoint
from rewardsds.runs.loop import make_optimizer
from rewardsds.scenes.base import Rendering
from rewardsds.scenes.cameras import Cameras, orbit, sample_orbit_group
from rewardsds.scenes.gaussians.density import PARAMETERS, limited, split_offsets
from rewardsds.scenes.gaussians.ply import read_ply
from rewardsds.scenes.gaussians.scene import GaussianScene
from rewardsds.scenes.gaussians.settings import GaussianSettings
from rewardsds.scenes.gaussians.strategies import MINIMUM_GAUSSIANS, densify, prune, useful
from rewardsds.scenes.settings import BackgroundSettings, CameraSettings

# --- start --------------------------------------------------------------------------------------------------


def test_initial_gaussians_fill_a_ball():
    scene = make(initial_gaussians=4000, initial_radius=0.5, initial_opacity=0.2, max_gaussians=5000)
    radius = scene.means.norm(dim=-1)
    assert radius.max() <= 0.5
    # uniform in the volume: half of the Gaussians lie within 0.5 · (1/2)^(1/3)
    assert (radius < 0.5 * 0.5 ** (1 / 3)).float().mean().item() == pytest.approx(0.5, abs=0.03)
    torch.testing.assert_close(scene.gaussians().opacities, torch.full((4000,), 0.2))
    spacing = (4 / 3 * math.pi * 0.5**3 / 4000) ** (1 / 3)
    torch.testing.assert_close(scene.gaussians().scales, torch.full((4000, 3), 0.6 * spacing))


def test_it_takes_one_item():
    with pytest.raises(ValueError, match="one item"):
        GaussianScene([generator(), generator()])


def test_starts_from_its_generator_alone():
    torch.manual_seed(1)
    a = make(seed=3)
    torch.manual_seed(2)
    b = make(seed=3)
    assert torch.equal(a.means, b.means)
    assert torch.equal(a.colour_logits, b.colour_logits)
    assert not torch.equal(a.means, make(seed=4).means)


@pytest.mark.parametrize(
    "wrong",
    [
        {"max_gaussians": 10},
        {"initial_radius": 2.0},
        {"initial_opacity": 1.0},
        {"initial_gaussians": 0},
        {"max_gaussians": 5_000_001},
        {"sh_degree": 4},
        {"strategy": "random"},
        {"unknown": 1},
    ],
)
def test_impossible_settings(wrong):
    with pytest.raises(ValidationError):
        GaussianSettings(**wrong)


# --- seeing -------------------------------------------------------------------------------------------------


def test_render_shapes_and_evaluation_background():
    scene = make(background=BackgroundSettings(evaluation=(0.9, 0.8, 0.7)), initial_radius=0.2)
    rendering = scene.render(scene.sample_cameras([generator()], 0))
    assert images_of(rendering).shape == (1, 4, 3, 32, 32)
    assert rendering.alpha is not None
    assert rendering.alpha.shape == (1, 4, 1, 32, 32)
    assert rendering.depth is not None
    assert rendering.depth.shape == (1, 4, 1, 32, 32)
    torch.testing.assert_close(images_of(rendering)[0, 0, :, 0, 0], torch.tensor([0.9, 0.8, 0.7]))


def test_depth_is_the_distance():
    cameras = sample_orbit_group(generator(), elevation=(0.0, 0.0))
    rendering = make(initial_radius=0.05, initial_opacity=0.5).render(cameras)
    assert rendering.depth is not None
    distance = cameras.camera_to_world[0, 0, :3, 3].norm()
    assert rendering.depth[0, 0, 0, 16, 16].item() == pytest.approx(distance.item(), abs=0.1)


def test_training_backgrounds_vary_and_stay_in_range():
    scene = make(initial_radius=0.1, initial_gaussians=10)
    g = generator(1)
    cameras = scene.sample_cameras([g], 0)
    with torch.no_grad():
        corners = torch.stack([images_of(scene.render(cameras, [g]))[0, :, :, 0, 0] for _ in range(60)])
    assert (corners == corners[:, :1]).all()  # the views of a step share it
    colours = corners[:, 0]
    grey = colours.mean(-1)
    assert grey.min() < 0.45
    assert grey.max() > 0.9
    assert colours.min() >= 0.35 - 0.06
    assert colours.max() <= 1.0
    assert (colours - grey[:, None]).abs().max() <= 0.12
    plain = BackgroundSettings(augmentation=False)
    fixed = make(background=plain, initial_radius=0.1, initial_gaussians=10)
    corner = images_of(fixed.render(cameras, [g]))[0, 0, :, 0, 0]
    torch.testing.assert_close(corner, torch.full((3,), 0.9))


def test_larger_renders_show_the_same_picture():
    """The mean of each 4 × 4 block of a 128 px render is the pixel of the 32 px render."""
    scene = make(initial_opacity=0.6)
    cameras = scene.sample_cameras([generator(2)], 0)
    small = scene.render_images(cameras, 32)[0]
    large = scene.render_images(cameras, 128)[0]
    blocks = torch.nn.functional.avg_pool2d(large, 4)
    assert (blocks - small).abs().mean() < 0.01
    assert (blocks - small).abs().max() < 0.1


def test_cameras_are_needed():
    with pytest.raises(ValueError, match=r"\(G, V\)"):
        make().render(None)


def test_groups_of_views_are_rendered_as_they_are_alone():
    scene = make()
    cameras = sample_orbit_group(generator(), batch=2)
    together = images_of(scene.render(cameras))
    assert together.shape == (2, 4, 3, 32, 32)
    for group in range(2):
        alone = images_of(scene.render(cameras[group : group + 1]))
        torch.testing.assert_close(together[group : group + 1], alone)


# --- optimising ---------------------------------------------------------------------------------------------


def test_means_learning_rate_falls_exponentially():
    scene = make(means_learning_rate=0.01, means_final_learning_rate=0.0001, means_decay_steps=100)
    optimizer = torch.optim.Adam(scene.parameter_groups())
    rates = []
    for number in (0, 50, 100, 500):
        scene.before_step(number, optimizer)
        rates.append({group["name"]: group["lr"] for group in optimizer.param_groups})
    assert [rate["means"] for rate in rates] == pytest.approx([0.01, 0.001, 0.0001, 0.0001])
    assert rates[-1]["colour_logits"] == scene.settings.colours_learning_rate


def test_entropy_does_not_grow_with_the_pictures() -> None:
    camera = CameraSettings(resolution=(32, 128), milestones=(5,))
    settings = GaussianSettings(initial_gaussians=200, initial_opacity=0.5, anisotropy_weight=0)
    scene = GaussianScene([generator()], settings, camera=camera)
    found = []
    for number in (4, 5):
        scene.before_step(number, torch.optim.Adam(scene.parameter_groups()))
        term = scene.regularisation(scene.render(scene.sample_cameras([generator()], number)))
        assert term is not None
        found.append(term.item())
    assert found[1] == pytest.approx(found[0], rel=0.25)  # less blur at the edges, not 16 times as much


def test_regularisation_by_hand():
    scene = make(opacity_entropy_weight=2.0, anisotropy_weight=0.5)
    with torch.no_grad():
        scene.log_scales.copy_(torch.tensor([0.0, 1.0, 2.0]).expand(200, 3))  # variance 2/3
    alpha = torch.full((1, 1, 1, 2, 2), 0.5)
    value = scene.regularisation(Rendering(alpha=alpha))
    assert value is not None
    assert value.item() == pytest.approx(2.0 * 4 * math.log(2) + 0.5 * 200 * 2 / 3, rel=1e-5)
    assert make(opacity_entropy_weight=0, anisotropy_weight=0).regularisation(Rendering(alpha=alpha)) is None


def test_the_strongest_gradients_are_cloned_or_split():
    scene = make(densify_threshold=2.0, split_scale=0.1)
    optimizer = torch.optim.Adam(scene.parameter_groups())
    g = generator(5)
    step(scene, optimizer, g, 0)
    with torch.no_grad():
        scene.log_scales[1] = math.log(0.2)  # large: split
        scene.log_scales[2] = math.log(0.02)  # small: cloned
    scene.gradient_sum = torch.ones(200)
    scene.gradient_sum[1:3] = 50.0
    scene.gradient_count = torch.full((200,), 4.0)
    scene.gradient_count[3] = 0.0  # never seen: no say
    before = {name: getattr(scene, name).detach().clone() for name in PARAMETERS}
    before_moments = {name: moments(scene, optimizer, name).clone() for name in PARAMETERS}
    densify(scene, optimizer, g)

    assert len(scene) == 202
    untouched = torch.arange(200) != 1
    for name in PARAMETERS:
        after = getattr(scene, name)
        assert torch.equal(after[:199], before[name][untouched])
        assert torch.equal(moments(scene, optimizer, name)[:199], before_moments[name][untouched])
        assert (moments(scene, optimizer, name)[199:] == 0).all()
        assert torch.equal(after[199], before[name][2])  # the clone
    halves = scene.log_scales[200:].exp()
    torch.testing.assert_close(halves, torch.full((2, 3), 0.2 / 1.6))
    assert (scene.means[200:] - before["means"][1]).norm(dim=-1).max() < 5 * 0.2
    assert not torch.equal(scene.means[200], scene.means[201])
    assert scene.gradient_sum.shape == (202,)
    assert (scene.gradient_sum == 0).all()
    step(scene, optimizer, g, 1)  # and it goes on
    assert moments(scene, optimizer, "means").shape == (202, 3)


def test_never_more_than_the_maximum():
    scene = make(max_gaussians=203, split_scale=1.0)
    optimizer = torch.optim.Adam(scene.parameter_groups())
    scene.gradient_sum = torch.ones(200)
    scene.gradient_sum[50:70] = torch.linspace(50, 60, 20)
    scene.gradient_count = torch.ones(200)
    expected = scene.means[67:70].detach().clone()  # the three strongest
    densify(scene, optimizer, generator())
    assert len(scene) == 203
    torch.testing.assert_close(scene.means[200:], expected)
    densify(scene, optimizer, generator())
    assert len(scene) == 203


def test_limited_takes_the_best():
    wanted = torch.tensor([True, False, True, True])
    score = torch.tensor([1.0, 9.0, 3.0, 3.0])
    assert limited(wanted, score, 3).tolist() == [True, False, True, True]
    assert limited(wanted, score, 1).tolist() == [False, False, True, False]
    assert limited(wanted, score, -5).tolist() == [False] * 4


def test_split_offsets_have_the_gaussians_covariance():
    half = math.sqrt(0.5)
    quats = torch.tensor([[half, 0.0, 0.0, half]]).repeat(4000, 1)  # x axis turned onto y
    log_scales = torch.tensor([0.5, 0.1, 0.01]).log().repeat(4000, 1)
    offsets = split_offsets(quats, log_scales, 2, generator()).reshape(-1, 3)
    torch.testing.assert_close(offsets.std(0), torch.tensor([0.1, 0.5, 0.01]), rtol=0.05, atol=0)


def test_pruning_removes_the_transparent_the_large_and_the_distant():
    scene = make(bounds=1.2, prune_scale=0.3, prune_opacity=0.02)
    optimizer = torch.optim.Adam(scene.parameter_groups())
    step(scene, optimizer, generator(), 0)
    with torch.no_grad():
        scene.opacity_logits[10] = math.log(0.01 / 0.99)
        scene.log_scales[20, 2] = math.log(0.31)
        scene.means[30] = torch.tensor([0.0, 0.9, 0.9])
    keep = torch.ones(200, dtype=torch.bool)
    keep[[10, 20, 30]] = False
    means, kept = scene.means.detach()[keep], moments(scene, optimizer, "means")[keep]
    prune(scene, optimizer)
    assert len(scene) == 197
    assert torch.equal(scene.means.detach(), means)
    assert torch.equal(moments(scene, optimizer, "means"), kept)
    assert len(scene.gradient_sum) == 197
    assert optimizer.param_groups[0]["params"][0] is scene.means


def test_pruning_leaves_something_to_optimise():
    scene = make()
    optimizer = torch.optim.Adam(scene.parameter_groups())
    with torch.no_grad():
        scene.opacity_logits.copy_(torch.linspace(-12, -9, 200))
    best = scene.opacity_logits.detach()[-MINIMUM_GAUSSIANS:]
    prune(scene, optimizer)
    assert torch.equal(scene.opacity_logits.detach(), best)


def test_opacity_reset():
    """As 3DGS and DreamGaussian: while Gaussians are added, and with steps after it in which they come back."""
    scene = make(opacity_reset_every=2, opacity_reset=0.01, densify_start=1, densify_stop=4)
    optimizer = torch.optim.Adam(scene.parameter_groups())
    g = generator()
    for number in range(2):
        step(scene, optimizer, g, number)
        assert scene.gaussians().opacities.max() > 0.099  # a run of two steps would end like this
    scene.before_step(2, optimizer)
    assert scene.gaussians().opacities.max() <= 0.01 + 1e-6
    assert (moments(scene, optimizer, "opacity_logits") == 0).all()
    with torch.no_grad():
        scene.opacity_logits.fill_(0.0)
    scene.before_step(4, optimizer)  # none is added any more
    assert (scene.opacity_logits == 0).all()


def test_a_reset_leaves_what_pruning_keeps() -> None:
    assert GaussianSettings(prune_opacity=0.005).resolved_opacity_reset == 0.01
    assert GaussianSettings().resolved_opacity_reset == 0.04
    scene = make(opacity_reset_every=1)
    scene.before_step(100, torch.optim.Adam(scene.parameter_groups()))
    assert useful(scene).all()
    with pytest.raises(ValueError, match="initial_opacity"):
        GaussianSettings(initial_opacity=0.003)


def test_schedule_of_densification_and_pruning():
    scene = make(
        densify_start=4, densify_stop=7, densify_every=2, densify_threshold=1.0, prune_start=8, bounds=0.6
    )
    optimizer = torch.optim.Adam(scene.parameter_groups())
    g = generator()
    with torch.no_grad():
        scene.means[0] = torch.tensor([0.0, 0.0, 0.8])
    counts = []
    for number in range(8):
        step(scene, optimizer, g, number)
        counts.append(len(scene))
    assert counts[:3] == [200] * 3
    assert counts[3] > 200
    assert counts[5] > counts[3]
    assert counts[6] == counts[5]
    assert counts[7] < counts[6]


def test_gradients_of_every_view_are_gathered():
    scene = make()
    optimizer = torch.optim.Adam(scene.parameter_groups())
    step(scene, optimizer, generator(), 0)
    assert (scene.gradient_count == 4).all()  # in the middle of every view
    assert (scene.gradient_sum > 0).float().mean() > 0.9
    rendering = scene.render(scene.sample_cameras([generator()], 0))  # never sent backward
    before = scene.gradient_sum.clone()
    scene.after_step(1, optimizer, [generator()])
    assert torch.equal(scene.gradient_sum, before)
    assert images_of(rendering).requires_grad


def test_an_optimiser_of_other_parameters_is_refused():
    scene = make(densify_start=1, densify_every=1, densify_threshold=1.0)
    optimizer = torch.optim.Adam(make().parameter_groups())
    scene.gradient_sum = torch.rand(200, generator=generator())
    scene.gradient_count = torch.ones(200)
    with pytest.raises(ValueError, match="does not hold"):
        scene.after_step(0, optimizer, [generator()])


# --- keeping ------------------------------------------------------------------------------------------------

SHORT = {
    "densify_start": 2,
    "densify_every": 2,
    "opacity_reset_every": 3,
    "densify_threshold": 1.2,
    "prune_start": 2,
    "bounds": 0.65,
}


def test_same_seed_same_bits():
    states = []
    for _ in range(2):
        scene, g = make(**SHORT), generator(1)
        optimizer = torch.optim.Adam(scene.parameter_groups())
        for number in range(8):
            step(scene, optimizer, g, number)
        states.append(scene.state_dict())
    assert len(states[0]["means"]) != 200
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])


def test_interrupted_and_resumed_equals_undisturbed():
    scene, g = make(**SHORT), generator(1)
    optimizer = torch.optim.Adam(scene.parameter_groups())
    for number in range(5):
        step(scene, optimizer, g, number)
    saved = {name: tensor.clone() for name, tensor in scene.state_dict().items()}
    saved_optimizer = copy.deepcopy(optimizer.state_dict())
    saved_generator = g.get_state()
    for number in range(5, 10):
        step(scene, optimizer, g, number)

    resumed, h = make(seed=7, **SHORT), generator()
    resumed.load_state_dict(saved)
    other = torch.optim.Adam(resumed.parameter_groups())
    other.load_state_dict(saved_optimizer)
    h.set_state(saved_generator)
    for number in range(5, 10):
        step(resumed, other, h, number)
    for name, tensor in scene.state_dict().items():
        assert torch.equal(tensor, resumed.state_dict()[name]), name


def test_state_of_another_size_is_taken_and_a_broken_one_refused():
    small, large = make(initial_gaussians=100), make(seed=1)
    small.load_state_dict(large.state_dict())
    assert len(small) == 200
    cameras = small.sample_cameras([generator()], 0)
    assert torch.equal(small.render_images(cameras, 32), large.render_images(cameras, 32))
    same = small.means
    small.load_state_dict(large.state_dict())
    assert small.means is same  # in place, an optimiser may already hold it
    state = dict(large.state_dict())
    with pytest.raises(ValueError, match="quats has shape"):
        small.load_state_dict(state | {"quats": torch.zeros(3, 4)})
    del state["means"]
    with pytest.raises(ValueError, match="lacks means"):
        small.load_state_dict(state)


def test_a_state_of_none_or_of_another_degree_is_refused():
    scene = make(sh_degree=1)
    state = dict(scene.state_dict())
    with pytest.raises(ValueError, match="the state has 0 Gaussians: expected 1 to 5,000,000"):
        scene.load_state_dict({name: tensor[:0] if tensor.ndim else tensor for name, tensor in state.items()})
    with pytest.raises(ValueError, match=r"harmonics has shape \(200, 8, 3\), expected \(200, 3, 3\)"):
        scene.load_state_dict(make(sh_degree=2).state_dict())
    with pytest.raises(ValueError, match="lacks degree, harmonics"):
        scene.load_state_dict(make().state_dict())


def test_a_checkpoint_file_keeps_harmonics_and_their_degree(tmp_path):
    settings = {
        "sh_degree": 3,
        "sh_degree_every": 2,
        "strategy": "mcmc",
        "densify_start": 1,
        "densify_every": 1,
    }
    scene, g = make(**settings), generator(1)
    optimizer = make_optimizer(scene)
    for number in range(5):
        step(scene, optimizer, g, number)
    saved = checkpoint.save(checkpoint.capture(5, scene, Nothing(), optimizer, {"scene": [g]}), tmp_path)
    found = checkpoint.load(saved)
    resumed = make(seed=3, **settings)
    checkpoint.restore_scene(found, resumed)
    other = make_optimizer(resumed)
    checkpoint.restore(found, resumed, other, {"scene": [g]})
    assert resumed.degree == scene.degree == 2
    assert len(resumed) == len(scene) > 200
    cameras = scene.sample_cameras([generator(2)], 0)
    assert torch.equal(scene.render_images(cameras, 32), resumed.render_images(cameras, 32))
    assert torch.equal(moments(scene, optimizer, "harmonics"), moments(resumed, other, "harmonics"))


class Nothing:
    """A guidance that has learned nothing."""

    def state_dict(self):
        return {}

    def load_state_dict(self, state):
        assert not state


def test_exported_gaussians_carry_the_training_blur(tmp_path):
    """Rendered by anyone at high resolution and averaged, the file shows what the scene shows in training."""
    from rewardsds.scenes.gaussians.rasterization import rasterization

    scene = make(initial_opacity=0.6)
    scene.export_ply(tmp_path / "scene.ply")
    g = read_ply(tmp_path / "scene.ply")
    cameras: Cameras = sample_orbit_group(generator(2), relative_distance=(1.0, 1.0))
    renders, _, _ = rasterization(
        g["means"],
        g["quats"],
        g["scales"],
        g["opacities"],
        g["colours"],
        cameras.opencv_world_to_camera()[0],
        cameras.intrinsics(256, 256)[0],
        256,
        256,
        backgrounds=torch.full((4, 3), 0.9),
    )
    blocks = torch.nn.functional.avg_pool2d(renders.permute(0, 3, 1, 2), 8)
    small = scene.render_images(cameras, 32)[0]
    assert (blocks - small).abs().mean() < 0.01


def of_trajectory(file: Path, initial_gaussians: int = 20) -> GaussianScene:
    camera = CameraSettings(resolution=(32,), trajectory=file)
    settings = GaussianSettings(initial_gaussians=initial_gaussians)
    return GaussianScene([generator()], settings, camera=camera)


def added_variance(scene: GaussianScene, path: Path) -> float:
    """What a file holds more than the scene, of the square of a scale."""
    scene.export_ply(path)
    return float((read_ply(path)["scales"].square() - scene.gaussians().scales.detach().square()).mean())


def test_the_blur_of_a_file_is_that_of_a_trajectory(tmp_path):
    """Cameras 2 and 4 away that see 90°: a picture of the origin is 4 and 8 wide, on average 6, of 32 pixels."""
    poses = orbit(
        torch.tensor([0.0, 1.0]), torch.zeros(()), torch.tensor([2.0, 4.0]), torch.tensor(math.pi / 2)
    )
    frames = [{"transform_matrix": pose.tolist()} for pose in poses.camera_to_world]
    file = tmp_path / "transforms.json"
    file.write_text(json.dumps({"camera_angle_x": math.pi / 2, "frames": frames}))
    scene = of_trajectory(file)
    scene.sample_cameras([generator()], 0)
    wanted = 0.3 * (6 / 32) ** 2
    assert added_variance(scene, tmp_path / "a.ply") == pytest.approx(wanted, rel=1e-4)
    # it is kept with the state: neither the file nor its cameras are needed any more
    state = dict(scene.state_dict())
    file.unlink()
    other = of_trajectory(file, initial_gaussians=5)
    other.load_state_dict(state)
    assert added_variance(other, tmp_path / "b.ply") == pytest.approx(wanted, rel=1e-4)
    assert other.state_dict().keys() == state.keys()
    # an older state has nothing about it
    del state["relative_distance"]
    other = of_trajectory(file)
    other.load_state_dict(state)
    with pytest.raises(ValueError, match="no file of cameras"):
        other.export_ply(tmp_path / "c.ply")
    # a scene without a trajectory has its own
    plain = GaussianScene([generator()], GaussianSettings(), camera=CameraSettings(resolution=(32,)))
    plain.load_state_dict(scene.state_dict())
    assert added_variance(plain, tmp_path / "d.ply") == pytest.approx(0.3 * (2 / 32) ** 2, rel=1e-4)


def test_a_state_that_has_exploded_is_refused():
    scene = make()
    state = dict(scene.state_dict())
    for name in ("means", "colour_logits", "opacity_logits"):
        broken = state[name].clone()
        broken[3] = math.nan
        with pytest.raises(ValueError, match="exploded: 1 of its 200 Gaussians"):
            scene.load_state_dict({**state, name: broken})


# --- fitting ------------------------------------------------------------------------------------------------


def two_coloured_ball(size: int, cameras: Cameras) -> Tensor:
    """True pictures (V, 3, size, size) of a ball of radius 0.6, red above z = 0 and blue below, on 0.9 grey.

    Rays are intersected with the sphere; 2 × 2 samples per pixel.
    """
    fine = 2 * size
    c2w, K = cameras.camera_to_world[0], cameras.intrinsics(fine, fine)[0]
    y, x = torch.meshgrid(torch.arange(fine) + 0.5, torch.arange(fine) + 0.5, indexing="ij")
    focal = K[:, 0, 0, None, None]
    direction = torch.stack(
        [
            (x - fine / 2) / focal,
            -(y - fine / 2) / focal,
            torch.full_like(x, -1.0).expand(len(K), -1, -1),
        ],
        dim=-1,
    )
    direction = torch.nn.functional.normalize(
        (c2w[:, None, None, :3, :3] @ direction[..., None])[..., 0], dim=-1
    )
    origin = c2w[:, None, None, :3, 3]
    along = -(origin * direction).sum(-1)
    miss = origin.square().sum(-1) - along**2
    hit = miss < 0.6**2
    point_z = origin[..., 2] + (along - (0.6**2 - miss).clamp(min=0).sqrt()) * direction[..., 2]
    red, blue = torch.tensor([0.9, 0.1, 0.1]), torch.tensor([0.1, 0.2, 0.9])
    colour = torch.where((point_z > 0)[..., None], red, blue)
    picture = torch.where(hit[..., None], colour, torch.tensor(0.9))
    return torch.nn.functional.avg_pool2d(picture.permute(0, 3, 1, 2), 2)


@pytest.mark.slow
@pytest.mark.parametrize("changes", [{}, {"strategy": "mcmc"}, {"sh_degree": 2, "sh_degree_every": 40}])
def test_gaussians_fit_a_two_coloured_ball(changes):
    """150 steps on random views; then views that were never trained on are compared."""
    g = generator(0)
    settings = GaussianSettings(initial_gaussians=1500).model_copy(update=changes)
    scene = GaussianScene([g], settings, background=BackgroundSettings(augmentation=False))
    optimizer = torch.optim.Adam(scene.parameter_groups())
    for number in range(150):
        scene.before_step(number, optimizer)
        cameras = scene.sample_cameras([g], number)
        rendering = scene.render(cameras, [g])
        loss = (images_of(rendering)[0] - two_coloured_ball(64, cameras)).square().sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        scene.after_step(number, optimizer, [g])
    cameras = sample_orbit_group(generator(99), views=8, elevation=(10.0, 20.0), field_of_view=(40.0, 40.0))
    for size in (64, 128):
        error = (scene.render_images(cameras, size)[0] - two_coloured_ball(size, cameras)).square().mean()
        psnr = -10 * math.log10(error.item())
        assert psnr > 24, f"{psnr:.1f} dB at {size} px"
