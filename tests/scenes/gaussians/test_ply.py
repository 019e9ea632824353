import numpy as np
import pytest
import torch
from plyfile import PlyData

from rewardsds.scenes.gaussians.ply import read_ply, write_ply


def some_gaussians(count: int) -> dict[str, torch.Tensor]:
    g = torch.Generator().manual_seed(0)
    return {
        "means": torch.randn(count, 3, generator=g),
        "quats": torch.randn(count, 4, generator=g),
        "scales": torch.rand(count, 3, generator=g) + 0.01,
        "opacities": 0.01 + 0.98 * torch.rand(count, generator=g),
        "colours": torch.rand(count, 3, generator=g),
    }


def test_an_independent_reader_finds_the_3dgs_layout(tmp_path):
    write_ply(
        tmp_path / "g.ply",
        means=torch.tensor([[1.0, 2.0, 3.0]]),
        quats=torch.tensor([[2.0, 0.0, 0.0, 0.0]]),
        scales=torch.tensor([[1.0, np.e, np.e**2]]),
        opacities=torch.tensor([0.5]),
        colours=torch.tensor([[0.5, 0.5 + 0.28209479, 0.0]]),
    )
    data = PlyData.read(tmp_path / "g.ply")
    assert data.byte_order == "<"
    assert not data.text
    vertex = data["vertex"]
    names = [p.name for p in vertex.properties]
    assert names[:9] == ["x", "y", "z", "nx", "ny", "nz", "f_dc_0", "f_dc_1", "f_dc_2"]
    assert names[9:54] == [f"f_rest_{i}" for i in range(45)]
    assert names[54:] == ["opacity", "scale_0", "scale_1", "scale_2", "rot_0", "rot_1", "rot_2", "rot_3"]
    row = {name: float(vertex[name][0]) for name in names}
    expected = dict.fromkeys(names, 0.0) | {"x": 1.0, "y": 2.0, "z": 3.0, "rot_0": 1.0}
    expected |= {"scale_1": 1.0, "scale_2": 2.0, "f_dc_1": 1.0, "f_dc_2": -0.5 / 0.28209479}
    assert row == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("count", [1, 50])
def test_round_trip(tmp_path, count):
    gaussians = some_gaussians(count)
    write_ply(tmp_path / "g.ply", **gaussians)
    back = read_ply(tmp_path / "g.ply")
    gaussians["quats"] = torch.nn.functional.normalize(gaussians["quats"], dim=-1)
    for name, value in gaussians.items():
        torch.testing.assert_close(back[name], value, atol=1e-5, rtol=1e-5)


def test_fully_opaque_and_transparent_stay_finite(tmp_path):
    gaussians = some_gaussians(2) | {"opacities": torch.tensor([0.0, 1.0])}
    write_ply(tmp_path / "g.ply", **gaussians)
    back = read_ply(tmp_path / "g.ply")["opacities"]
    torch.testing.assert_close(back, torch.tensor([0.0, 1.0]), atol=1e-5, rtol=0)
    assert np.isfinite(PlyData.read(tmp_path / "g.ply")["vertex"]["opacity"]).all()


def test_damaged_and_foreign_files_are_explained(tmp_path):
    path = tmp_path / "g.ply"
    write_ply(path, **some_gaussians(5))
    whole = path.read_bytes()
    for data, message in [
        (b"hello", "not a PLY"),
        (whole[:-10], "cut short"),
        (whole.replace(b"binary_little_endian", b"ascii"), "only kind"),
        (whole.replace(b"scale_0", b"other_0"), "lacks scale_0"),
        (whole.replace(b"property float nx", b"property list uchar int nx"), "property"),
    ]:
        path.write_bytes(data)
        with pytest.raises(ValueError, match=message):
            read_ply(path)
