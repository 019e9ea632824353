import math

import pytest
import torch
import trimesh
from hypothesis import given
from hypothesis import strategies as st
from trimesh.ray.ray_pyembree import RayMeshIntersector

from rewardsds.scenes.cameras import Cameras, orbit, sample_orbit_group
from rewardsds.scenes.mesh.rasterise import atlas_texels, rasterise, rasterise_uvs, reference_rasterise


def front(distance: float = 2.0, degrees: float = 90.0) -> Cameras:
    """One camera on +X that looks at the origin: +Y is to the right, +Z up."""
    zero = torch.zeros(1)
    return orbit(zero, zero, torch.tensor([distance]), torch.tensor([math.radians(degrees)]))


def ball(divisions: int = 2, radius: float = 0.6) -> tuple[torch.Tensor, torch.Tensor]:
    mesh = trimesh.creation.icosphere(divisions, radius)
    return torch.tensor(mesh.vertices, dtype=torch.float32), torch.tensor(mesh.faces)


def test_one_triangle_by_hand():
    # In the plane x = 0, 2 before the camera; a picture of 4 × 4 pixels shows 4 × 4 world units there.
    vertices = torch.tensor([[0.0, -2.0, 2.0], [0.0, 2.0, 2.0], [0.0, -2.0, -2.0]])
    seen = rasterise(vertices, torch.tensor([[0, 1, 2]]), front(), 4, 4)
    # The upper left half; pixel centres on the diagonal belong to it, its edges included.
    expected = [[True] * (4 - row) + [False] * row for row in range(4)]
    assert seen.mask[0].tolist() == expected
    torch.testing.assert_close(seen.depth[0][seen.mask[0]], torch.full((10,), 2.0))
    # pixel (0, 0) is at y = −1.5, z = 1.5: an eighth from the corner along both sides
    torch.testing.assert_close(seen.barycentric[0, 0, 0], torch.tensor([0.75, 0.125, 0.125]))


def test_barycentrics_are_those_of_the_place_in_the_world_not_of_the_picture():
    vertices = torch.tensor([[1.0, -0.5, -0.5], [-3.0, 2.0, -0.5], [0.0, 0.0, 1.0]])
    camera = front()
    faces = torch.tensor([[0, 1, 2]])
    seen = rasterise(vertices, faces, camera, 33, 33)
    places = seen.interpolate(faces, vertices)
    origins, directions = camera.rays(33, 33)
    along = (places - origins[seen.mask]) * directions[seen.mask]
    # where the barycentrics say the ray meets the triangle, that is where the ray goes
    torch.testing.assert_close(
        places, origins[seen.mask] + along.sum(-1, keepdim=True) * directions[seen.mask], atol=1e-5, rtol=0
    )
    assert len(places) > 50


@given(seed=st.integers(0, 10_000), height=st.integers(1, 24), width=st.integers(1, 24))
def test_the_kernel_is_the_reference(seed: int, height: int, width: int):
    """Also with triangles that reach behind the camera, which stands among them."""
    g = torch.Generator().manual_seed(seed)
    vertices = torch.randn((30, 3), generator=g)
    faces = torch.stack([torch.randperm(30, generator=g)[:3] for _ in range(40)])
    cameras = sample_orbit_group(g, 2, relative_distance=(0.3, 1.0))[0]
    fast = rasterise(vertices, faces, cameras, height, width)
    plain = reference_rasterise(vertices, faces, cameras, height, width, chunk=7)
    assert torch.equal(fast.mask, plain.mask)
    torch.testing.assert_close(fast.depth, plain.depth)
    # on an edge that two triangles share, rounding decides which of them is nearer: they are at one place there
    torch.testing.assert_close(
        fast.interpolate(faces, vertices), plain.interpolate(faces, vertices), atol=1e-5, rtol=1e-5
    )
    same = fast.triangle == plain.triangle
    torch.testing.assert_close(fast.barycentric[same], plain.barycentric[same])
    assert (~same).sum() <= 2 + same.numel() // 20


def test_embree_sees_the_same():
    vertices, faces = ball()
    cameras = sample_orbit_group(torch.Generator().manual_seed(3), 3)[0]
    seen = rasterise(vertices, faces, cameras, 48, 40)
    origins, directions = cameras.rays(40, 48)
    caster = RayMeshIntersector(trimesh.Trimesh(vertices.numpy(), faces.numpy(), process=False))
    theirs = torch.from_numpy(
        caster.intersects_first(origins.reshape(-1, 3).numpy(), directions.reshape(-1, 3).numpy())
    ).reshape(seen.triangle.shape)
    same = (seen.triangle == theirs).float().mean()  # single precision decides otherwise on some edges
    assert same > 0.999
    assert seen.mask.float().mean() > 0.1


@given(seed=st.integers(0, 10_000))
def test_neighbours_leave_no_gap_and_do_not_overlap(seed: int):
    """A fan of triangles over the whole picture: each pixel has exactly one, apart from those on edges."""
    g = torch.Generator().manual_seed(seed)
    angles = torch.rand(7, generator=g).sort().values * 2 * math.pi
    angles = torch.cat([angles, torch.arange(8) * math.pi / 4]).sort().values
    ring = torch.stack([torch.zeros(15), 9 * angles.cos(), 9 * angles.sin()], dim=-1)
    centre = 0.7 * torch.randn((1, 3), generator=g) * torch.tensor([0.0, 1.0, 1.0])
    vertices = torch.cat([centre, ring])
    faces = torch.tensor([[0, 1 + k, 1 + (k + 1) % 15] for k in range(15)])
    camera = front()
    assert bool(rasterise(vertices, faces, camera, 31, 31).mask.all())
    counts = sum(rasterise(vertices, face[None], camera, 31, 31).mask.int() for face in faces)
    assert isinstance(counts, torch.Tensor)
    assert counts.float().mean() < 1.1


def test_the_nearest_counts_and_of_equally_near_ones_the_first():
    corners = torch.tensor([[0.0, -5.0, -5.0], [0.0, 5.0, -5.0], [0.0, 0.0, 9.0]])
    nearer = corners + torch.tensor([0.5, 0.0, 0.0])
    vertices = torch.cat([corners, nearer])
    faces = torch.tensor([[0, 1, 2], [3, 4, 5], [3, 5, 4]])
    seen = rasterise(vertices, faces, front(), 5, 5)
    assert (seen.triangle == 1).all()
    torch.testing.assert_close(seen.depth, torch.full((1, 5, 5), 1.5))


def test_what_is_behind_the_camera_is_not_seen():
    behind = torch.tensor([[3.0, -5.0, -5.0], [3.0, 5.0, -5.0], [3.0, 0.0, 9.0]])
    assert not rasterise(behind, torch.tensor([[0, 1, 2]]), front(), 8, 8).mask.any()


def test_triangles_without_area_are_not_seen():
    vertices = torch.randn((30, 3), generator=torch.Generator().manual_seed(0))
    index = torch.arange(30)
    faces = torch.cat(
        [torch.stack(three, dim=-1) for three in ((index, index, index), (index, index, index.flip(0)))]
    )
    cameras = sample_orbit_group(torch.Generator().manual_seed(1), 3)[0]
    assert not rasterise(vertices, faces, cameras, 30, 30).mask.any()


def test_threads_change_nothing():
    vertices, faces = ball(3)
    cameras = sample_orbit_group(torch.Generator().manual_seed(1), 4)[0]
    before = torch.get_num_threads()
    results = []
    for threads in (1, 2):
        torch.set_num_threads(threads)
        results.append(rasterise(vertices, faces, cameras, 200, 60))
    torch.set_num_threads(before)
    assert torch.equal(results[0].triangle, results[1].triangle)
    assert torch.equal(results[0].barycentric, results[1].barycentric)


def test_texels_of_an_atlas():
    uvs = torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    covered = rasterise_uvs(uvs, torch.tensor([[0, 1, 2]]), 4)
    assert covered.mask[0].tolist() == [[True] * (4 - row) + [False] * row for row in range(4)]
    found = covered.interpolate(torch.tensor([[0, 1, 2]]), uvs)
    rows, columns = torch.nonzero(covered.mask[0]).unbind(-1)
    torch.testing.assert_close(found, torch.stack([columns + 0.5, rows + 0.5], dim=-1) / 4)


def test_triangles_between_texel_centres_get_one():
    """The larger of two in one texel; what is covered stays."""
    corner = torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    uvs = torch.cat(
        [
            0.5 * corner,  # covers the upper left quarter's half
            0.83 + 0.01 * corner,
            0.83 + 0.02 * corner,
            0.13 + 0.01 * corner,  # lies on the first one
        ]
    )
    faces = torch.arange(12).reshape(4, 3)
    plain, found = rasterise_uvs(uvs, faces, 4), atlas_texels(uvs, faces, 4)
    wanted = plain.triangle.clone()
    wanted[0, 3, 3] = 2
    assert torch.equal(found.triangle, wanted)
    middle = found.interpolate(faces, uvs)[-1]
    torch.testing.assert_close(middle, uvs[6:9].mean(0))
    covered = plain.mask
    assert torch.equal(found.barycentric[covered], plain.barycentric[covered])


def test_cameras_without_a_single_axis_are_refused():
    vertices, faces = ball()
    with pytest.raises(ValueError, match="batch shape"):
        rasterise(vertices, faces, sample_orbit_group(torch.Generator(), 2), 8, 8)


@pytest.mark.cuda
def test_tensors_on_a_gpu():
    vertices, faces = ball()
    cameras = sample_orbit_group(torch.Generator().manual_seed(3), 2)[0]
    here = rasterise(vertices, faces, cameras, 40, 40)
    there = rasterise(vertices.cuda(), faces.cuda(), cameras.to("cuda"), 40, 40)
    plain = reference_rasterise(vertices.cuda(), faces.cuda(), cameras.to("cuda"), 40, 40)
    assert there.triangle.is_cuda
    assert torch.equal(there.triangle.cpu(), here.triangle)
    assert (plain.triangle.cpu() == here.triangle).float().mean() > 0.999
