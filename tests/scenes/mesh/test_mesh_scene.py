import pytest
import torch
import trimesh
from analytic_objects import Sphere
from torch import Tensor

from rewardsds.scenes.base import Rendering
from rewardsds.scenes.cameras import Cameras, orbit, sample_orbit_group
from rewardsds.scenes.group import SceneGroup
from rewardsds.scenes.mesh.make import make_mesh
from rewardsds.scenes.mesh.scene import MeshScene
from rewardsds.scenes.mesh.settings import MeshSettings
from rewardsds.scenes.mesh.textured import TexturedMesh, resampled, sample_texture
from rewardsds.scenes.settings import BackgroundSettings, CameraSettings


def wall(texture: Tensor) -> TexturedMesh:
    """A square of 2 × 2 at x = 0 that faces +X: its texture as a camera there sees it."""
    vertices = torch.tensor([[0.0, -1.0, -1.0], [0.0, 1.0, -1.0], [0.0, 1.0, 1.0], [0.0, -1.0, 1.0]])
    uvs = torch.tensor([[0.0, 1.0], [1.0, 1.0], [1.0, 0.0], [0.0, 0.0]])
    return TexturedMesh(vertices, torch.tensor([[0, 1, 2], [0, 2, 3]]), uvs, texture)


def ball(size: int = 16, seed: int = 0) -> TexturedMesh:
    mesh = trimesh.creation.icosphere(2, 0.6)
    vertices = torch.tensor(mesh.vertices, dtype=torch.float32)
    uvs = 0.5 + 0.4 * vertices[:, :2] / 0.6
    texture = torch.rand((3, size, size), generator=torch.Generator().manual_seed(seed))
    return TexturedMesh(vertices, torch.tensor(mesh.faces), uvs, texture)


def facing(count: int = 1) -> Cameras:
    """(1, count) cameras on +X whose pictures show 2 × 2 at x = 0."""
    zero = torch.zeros((1, count))
    return orbit(zero, zero, zero + 2, zero + 2 * torch.atan(torch.tensor(0.5)))


def scene_of(mesh: TexturedMesh, **settings) -> MeshScene:
    return MeshScene(
        mesh,
        MeshSettings.model_validate(settings),
        camera=CameraSettings(resolution=(16,)),
        background=BackgroundSettings(evaluation=(0.2, 0.4, 0.6)),
    )


def test_a_wall_shows_its_texture():
    """Each pixel is the mean of the four texels that it covers."""
    texture = 0.1 + 0.8 * torch.rand((3, 8, 8), generator=torch.Generator().manual_seed(0))
    rendering = scene_of(wall(texture), supersampling=2).render(facing(), size=4)
    assert rendering.images is not None
    assert rendering.alpha is not None
    assert rendering.depth is not None
    torch.testing.assert_close(rendering.images[0, 0], torch.nn.functional.avg_pool2d(texture, 2))
    assert (rendering.alpha == 1).all()
    torch.testing.assert_close(rendering.depth, torch.full((1, 1, 1, 4, 4), 2.0))


def test_edges_are_smooth_and_the_background_is_behind():
    half = wall(torch.full((3, 4, 4), 0.9))
    half = TexturedMesh(half.vertices * 0.75, half.faces, half.uvs, half.texture)
    rendering = scene_of(half, supersampling=4).render(facing(), size=4)
    assert rendering.images is not None
    assert rendering.alpha is not None
    edge = rendering.alpha[0, 0, 0]
    torch.testing.assert_close(edge[0], torch.tensor([0.25, 0.5, 0.5, 0.25]))  # half a pixel is covered
    behind = torch.tensor([0.2, 0.4, 0.6])
    torch.testing.assert_close(rendering.images[0, 0, :, 0, 0], 0.25 * torch.tensor(0.9) + 0.75 * behind)
    given = scene_of(half).render(facing(), size=4, background=(1.0, 0.0, 0.0))
    assert given.images is not None
    torch.testing.assert_close(given.images[0, 0, 0, 0, 0], torch.tensor(0.25 * 0.9 + 0.75))


def test_look_ups_are_bilinear():
    texture = torch.arange(4.0).reshape(1, 2, 2).expand(3, 2, 2)
    uvs = torch.tensor([[0.25, 0.25], [0.75, 0.25], [0.5, 0.5], [0.25, 0.625], [0.0, 1.0]])
    assert sample_texture(texture, uvs)[:, 0].tolist() == [0.0, 1.0, 1.5, 1.5, 2.0]
    torch.testing.assert_close(resampled(texture, 2), texture)
    assert resampled(texture, 5)[0, 2].tolist() == pytest.approx([1.0, 1.1, 1.5, 1.9, 2.0])


def test_a_smaller_texture_is_the_mean_of_the_larger():
    stripes = torch.zeros((3, 64, 64))
    stripes[:, :, ::4] = 1.0
    torch.testing.assert_close(resampled(stripes, 16), torch.full((3, 16, 16), 0.25))
    texture = torch.rand((3, 50, 50), generator=torch.Generator().manual_seed(0))
    for size in (50, 49, 32, 20, 7):
        small = resampled(texture, size)
        torch.testing.assert_close(small.mean((1, 2)), texture.mean((1, 2)), atol=1e-6, rtol=0)
    # texels of 2.5: two whole ones and half of the third
    row = torch.arange(5.0).expand(3, 5, 5) / 5
    torch.testing.assert_close(resampled(row, 2)[0, 0], torch.tensor([0.8, 3.2]) / 5)


def test_grid_sample_looks_up_the_same():
    texture = torch.rand((3, 9, 9), generator=torch.Generator().manual_seed(1))
    uvs = torch.rand((50, 2), generator=torch.Generator().manual_seed(2))
    theirs = torch.nn.functional.grid_sample(
        texture[None], 2 * uvs[None, None] - 1, align_corners=False, padding_mode="border"
    )
    torch.testing.assert_close(sample_texture(texture, uvs), theirs[0, :, 0].T)


def test_the_gradient_is_that_of_finite_differences():
    scene = scene_of(ball(4))
    cameras = sample_orbit_group(torch.Generator().manual_seed(0), 2)
    weights = torch.randn((1, 2, 3, 12, 12), generator=torch.Generator().manual_seed(1))

    def loss() -> Tensor:
        images = scene.render(cameras, size=12).images
        assert images is not None
        return (images.double() * weights).sum()

    (gradient,) = torch.autograd.grad(loss(), [scene.texture_logits])
    step = 0.01
    for place in [(0, 1, 1), (1, 2, 2), (2, 1, 3)]:
        with torch.no_grad():
            scene.texture_logits[place] += step
            above = loss()
            scene.texture_logits[place] -= 2 * step
            below = loss()
            scene.texture_logits[place] += step
        assert float((above - below) / (2 * step)) == pytest.approx(
            float(gradient[place]), rel=2e-3, abs=1e-3
        )
    assert gradient.abs().max() > 0.1


def test_a_loss_repaints_it():
    scene = scene_of(ball())
    optimizer = torch.optim.Adam(scene.parameter_groups())
    g = torch.Generator().manual_seed(0)
    wanted = torch.tensor([0.9, 0.2, 0.1])[:, None, None]
    errors = []
    for number in range(60):
        scene.before_step(number, optimizer)
        rendering = scene.render(scene.sample_cameras([g], number), [g])
        assert rendering.images is not None
        assert rendering.alpha is not None
        error = (rendering.alpha * (rendering.images - wanted).square()).sum()
        optimizer.zero_grad()
        error.backward()
        optimizer.step()
        scene.after_step(number, optimizer, [g])
        errors.append(float(error.detach()))
    assert errors[-1] < 0.2 * errors[0]
    assert scene.step == 60
    mesh = scene.textured_mesh()
    assert torch.equal(mesh.vertices, ball().vertices)  # the shape stays
    assert torch.equal(make_mesh(scene).texture, mesh.texture)


def test_nothing_old_stays_between_the_charts():
    """Else seams show in viewers, whose coarser levels of a texture mix it in."""
    mesh = wall(torch.zeros((3, 16, 16)))
    mesh = TexturedMesh(mesh.vertices, mesh.faces, 0.25 + 0.5 * mesh.uvs, mesh.texture)
    scene = scene_of(mesh)
    with torch.no_grad():  # as gradients do: what triangles show turns white, the rest stays black
        scene.texture_logits[:, 4:12, 4:12] = 8.0
    assert (scene.textured_mesh().texture > 0.99).all()


def test_total_variation_by_hand():
    texture = torch.full((3, 2, 2), 0.5)
    texture[:, 0, 1] = 0.75
    scene = scene_of(wall(texture), total_variation_weight=2.0)
    # each channel has two pairs that differ by a quarter
    term = scene.regularisation(Rendering())
    assert term is not None
    torch.testing.assert_close(term, torch.tensor(2.0 * 3 * 2 * 0.25))
    assert scene_of(wall(texture)).regularisation(Rendering()) is None


def test_total_variation_is_of_what_triangles_show():
    texture = torch.rand((3, 4, 4), generator=torch.Generator().manual_seed(0))
    mesh = wall(texture)
    lower = TexturedMesh(mesh.vertices, mesh.faces[:1], mesh.uvs, mesh.texture)  # texels below the diagonal
    scene = scene_of(lower, total_variation_weight=1.0)
    term = scene.regularisation(Rendering())
    assert term is not None
    term.backward()
    assert scene.texture_logits.grad is not None
    assert (scene.texture_logits.grad[:, 0, :3] == 0).all()
    assert (scene.texture_logits.grad[:, 3].abs().sum(0) > 0).all()


def test_a_checkpoint_alone_brings_it_back():
    scene, other = scene_of(ball(16, seed=1)), scene_of(wall(torch.zeros((3, 8, 8))))
    other.load_state_dict(scene.state_dict())
    cameras = sample_orbit_group(torch.Generator().manual_seed(0), 2)
    assert torch.equal(scene.render_images(cameras, 24), other.render_images(cameras, 24))
    assert len(other.parameter_groups()[0]["params"][0][0]) == 16


def test_states_that_do_not_fit():
    scene = scene_of(ball())
    state = dict(scene.state_dict())
    with pytest.raises(ValueError, match=r"lacks faces, uvs"):
        scene.load_state_dict({key: state[key] for key in ("vertices", "texture_logits")})
    with pytest.raises(ValueError, match="does not have means"):
        scene.load_state_dict({**state, "means": torch.zeros(3)})
    with pytest.raises(ValueError, match=r"uvs has shape \(161, 2\)"):
        scene.load_state_dict({**state, "uvs": state["uvs"][:-1]})
    with pytest.raises(ValueError, match="vertices that are not there"):
        scene.load_state_dict({**state, "faces": state["faces"] + 100})
    with pytest.raises(ValueError, match="texture_logits has shape"):
        scene.load_state_dict({**state, "texture_logits": torch.zeros((4, 4))})
    for name in ("uvs", "texture_logits"):
        with pytest.raises(ValueError, match=f"{name} holds NaN or infinite values"):
            scene.load_state_dict({**state, name: torch.full_like(state[name], torch.nan)})


def test_items_of_a_group_are_what_they_are_alone():
    one, other = scene_of(ball(seed=1)), scene_of(ball(seed=2))
    cameras = sample_orbit_group(torch.Generator().manual_seed(0), 2, batch=2)
    together = SceneGroup([one, other]).render(cameras).images
    alone = [scene.render(cameras[k : k + 1]).images for k, scene in enumerate((one, other))]
    assert together is not None
    assert torch.equal(together, torch.cat([image for image in alone if image is not None]))


def test_its_density_is_the_signed_distance_and_its_colour_the_nearest():
    scene = scene_of(wall_of_ball())
    points = torch.tensor([[0.0, 0.0, 0.0], [0.0, 0.0, 0.9], [0.3, 0.0, 0.0], [-1.2, 0.0, 0.0]])
    wanted = 0.6 - points.norm(dim=-1)
    torch.testing.assert_close(scene.density(points), wanted, atol=0.03, rtol=0)
    colours = scene.colour(points[1:])
    assert colours.shape == (3, 3)
    assert colours[1, 0] > 0.85  # red on the side of +X
    assert colours[2, 0] < 0.15


def wall_of_ball() -> TexturedMesh:
    """The ball, its texture red where x > 0."""
    mesh = ball(32)
    texture = torch.zeros((3, 32, 32))
    texture[0, :, 16:] = 1.0
    return TexturedMesh(mesh.vertices, mesh.faces, mesh.uvs, texture)


def test_another_texture_size():
    scene = scene_of(ball(16), texture_size=64)
    assert scene.texture_logits.shape == (3, 64, 64)
    with pytest.raises(ValueError, match="cameras of batch shape"):
        scene.render(None)


def test_any_object_has_a_mesh_scene():
    from rewardsds.scenes.mesh.settings import MeshExportSettings

    small = MeshExportSettings(
        resolution=32, level=0.0, faces=800, texture_size=128, bake_views=12, bake_size=64
    )
    sphere = Sphere()
    scene = scene_of(make_mesh(sphere, small))
    cameras = sample_orbit_group(torch.Generator().manual_seed(5), 3)
    error = scene.render_images(cameras, 48, (0.5, 0.5, 0.5)) - sphere.render_images(
        cameras, 48, (0.5, 0.5, 0.5)
    )
    assert error.square().mean() < 10**-2.8
