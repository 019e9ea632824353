"""The .splat file, read back byte by byte as its viewers do."""

from __future__ import annotations

import math
import struct
from pathlib import Path

import pytest
import torch
from gaussian_steps import make

from rewardsds.scenes.gaussians.splat import write_splat


def read(path: Path) -> list[tuple[float, ...]]:
    """x y z, three scales, r g b a, and four quaternion bytes of each record."""
    return [tuple(row) for row in struct.iter_unpack("<6f4B4B", path.read_bytes())]


def test_layout_by_hand(tmp_path: Path) -> None:
    write_splat(
        tmp_path / "g.splat",
        means=torch.tensor([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]]),
        quats=torch.tensor([[1.0, 0.0, 0.0, 0.0], [0.0, -2.0, 0.0, 2.0]]),
        scales=torch.tensor([[0.1, 0.2, 0.3], [0.4, 0.5, 0.6]]),
        opacities=torch.tensor([1.0, 0.5]),
        colours=torch.tensor([[0.0, 0.5, 1.0], [0.2, 0.4, 0.6]]),
    )
    assert (tmp_path / "g.splat").stat().st_size == 2 * 32
    second, first = read(tmp_path / "g.splat")  # the larger one comes first
    half = 128 * math.sqrt(0.5)
    assert first[:6] == pytest.approx((1, 2, 3, 0.1, 0.2, 0.3))
    assert first[6:] == (0, 128, 255, 255, 255, 128, 128, 128)
    assert second[:6] == pytest.approx((4, 5, 6, 0.4, 0.5, 0.6))
    assert second[6:] == (51, 102, 153, 128, 128, round(128 - half), 128, round(128 + half))


def test_a_scene_keeps_its_gaussians_up_to_rounding(tmp_path: Path) -> None:
    scene = make(initial_colour_spread=1.0)
    with torch.no_grad():
        scene.quats.normal_(generator=torch.Generator().manual_seed(1))
        scene.opacity_logits.normal_(generator=torch.Generator().manual_seed(2))
    scene.export_splat(tmp_path / "g.splat")
    found = torch.tensor(read(tmp_path / "g.splat"))
    assert found.shape == (200, 14)
    importance = found[:, 3:6].prod(-1) * found[:, 9]
    assert (importance.diff() <= 0.01 * importance.max()).all()
    order = torch.cdist(scene.means.detach(), found[:, :3]).argmin(1)
    found, g = found[order], scene.gaussians()
    assert torch.equal(found[:, :3], g.means.detach())
    assert (found[:, 3:6] > g.scales).all()  # the blur of training is in them
    torch.testing.assert_close(found[:, 6:9] / 255, g.colours.detach(), atol=0.5 / 255 + 1e-6, rtol=0)
    torch.testing.assert_close(found[:, 9] / 255, g.opacities.detach(), atol=0.5 / 255 + 1e-6, rtol=0)
    unit = torch.nn.functional.normalize(g.quats.detach(), dim=-1)
    torch.testing.assert_close((found[:, 10:] - 128) / 128, unit, atol=1 / 128, rtol=0)


def test_an_exploded_or_empty_scene_leaves_no_file(tmp_path: Path) -> None:
    scene = make()
    with torch.no_grad():
        scene.log_scales[0] = math.inf
    with pytest.raises(ValueError, match="exploded: 1 of its 200"):
        scene.export_splat(tmp_path / "g.splat")
    none = torch.zeros(0, 3)
    with pytest.raises(ValueError, match="0 Gaussians"):
        write_splat(tmp_path / "g.splat", none, torch.zeros(0, 4), none, torch.zeros(0), none)
    assert list(tmp_path.iterdir()) == []
