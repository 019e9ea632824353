import logging

import numpy as np
import pytest
import torch
import trimesh
from scipy.ndimage import distance_transform_edt
from torch import Tensor
from trimesh.graph import connected_component_labels

from rewardsds.scenes.mesh.atlas import triangle_atlas, unwrap
from rewardsds.scenes.mesh.rasterise import rasterise_uvs


def ball(divisions: int = 2) -> tuple[Tensor, Tensor]:
    mesh = trimesh.creation.icosphere(divisions, 0.6)
    return torch.tensor(mesh.vertices, dtype=torch.float32), torch.tensor(mesh.faces)


def area(uvs: Tensor, faces: Tensor) -> Tensor:
    """(F,) of triangles in the texture, from 0 to 1."""
    a, b, c = uvs[faces].double().unbind(1)
    return 0.5 * ((b - a)[:, 0] * (c - a)[:, 1] - (b - a)[:, 1] * (c - a)[:, 0]).abs()


def check_no_overlap(uvs: Tensor, faces: Tensor, size: int) -> None:
    """Triangles that lie on each other would cover fewer texels than their areas add up to."""
    assert uvs.min() >= 0
    assert uvs.max() <= 1
    covered = rasterise_uvs(uvs, faces, size).mask.float().mean()
    assert float(covered) == pytest.approx(float(area(uvs, faces).sum()), rel=0.02)


def gap(uvs: Tensor, groups: list[Tensor], size: int) -> float:
    """Texels between the nearest centres that two groups of faces cover."""
    masks = [rasterise_uvs(uvs, group, size).mask[0].numpy() for group in groups]
    whole = np.sum(masks, axis=0)
    return min(
        float(np.asarray(distance_transform_edt(~own))[(whole - own) > 0].min(initial=np.inf))
        for own in masks
        if own.any()
    )


def test_xatlas_places_every_triangle_once():
    vertices, faces = ball()
    index, new_faces, uvs = unwrap(vertices, faces, 512, padding=4)
    assert torch.equal(index[new_faces], faces)  # the same triangles in the same order
    check_no_overlap(uvs, new_faces, 512)
    assert area(uvs, new_faces).sum() > 0.3  # of the texture is used
    # charts: faces that share new vertices
    edges = torch.cat([new_faces[:, :2], new_faces[:, 1:]]).numpy()
    labels = np.asarray(connected_component_labels(edges, len(uvs)))
    charts = torch.from_numpy(labels)[new_faces[:, 0]]
    groups = [new_faces[charts == chart] for chart in charts.unique()]
    assert len(groups) > 1
    assert gap(uvs, groups, 512) >= 4


def test_xatlas_gives_the_same_atlas_again():
    vertices, faces = ball(1)
    first, again = unwrap(vertices, faces, 256), unwrap(vertices, faces, 256)
    assert all(torch.equal(one, other) for one, other in zip(first, again))


@pytest.mark.parametrize("given", [{"seconds": 1e-3}, {"face_limit": 10}])
def test_where_xatlas_is_given_up(given, caplog: pytest.LogCaptureFixture):
    vertices, faces = ball(1)
    with caplog.at_level(logging.WARNING):
        index, new_faces, uvs = unwrap(vertices, faces, 256, **given)
    assert "simple atlas" in caplog.text
    assert torch.equal(index[new_faces], faces)
    check_no_overlap(uvs, new_faces, 256)


@pytest.mark.parametrize("count", [1, 2, 3, 7, 80])
def test_each_triangle_by_itself(count: int):
    faces = torch.arange(3 * count).reshape(-1, 3)
    index, new_faces, uvs = triangle_atlas(faces, 300, padding=3)
    assert torch.equal(index[new_faces], faces)
    check_no_overlap(uvs, new_faces, 300)
    if 1 < count < 10:
        assert gap(uvs, list(new_faces[:, None]), 300) >= 3


def test_too_many_triangles_for_a_texture():
    with pytest.raises(ValueError, match="allow fewer faces or a larger texture"):
        triangle_atlas(torch.zeros((5000, 3), dtype=torch.int64), 64)
