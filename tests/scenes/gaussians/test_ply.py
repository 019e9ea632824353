from typing import Any

import numpy as np
import pytest
import torch
from plyfile import PlyData

from rewardsds.scenes.gaussians.ply import read_blur, read_ply, write_ply


def some_gaussians(count: int) -> dict[str, Any]:
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
    gaussians: dict[str, Any] = some_gaussians(2) | {"opacities": torch.tensor([0.0, 1.0])}
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
        (whole.replace(b"element vertex 5", b"element "), "exactly one element"),
        (whole.replace(b"property float nx", b"property float x"), "the property x twice"),
    ]:
        path.write_bytes(data)
        with pytest.raises(ValueError, match=message) as error:
            read_ply(path)
        assert str(path) in str(error.value)


def test_harmonics_are_written_channel_after_channel(tmp_path):
    """f_rest_0 … 14 are red's, of degrees 1 to 3, then green's, then blue's, as 3DGS has them."""
    harmonics = torch.arange(2 * 15 * 3, dtype=torch.float32).reshape(2, 15, 3)
    write_ply(tmp_path / "g.ply", **some_gaussians(2), harmonics=harmonics)
    vertex = PlyData.read(tmp_path / "g.ply")["vertex"]
    for gaussian in range(2):
        for channel in range(3):
            for k in range(15):
                assert vertex[f"f_rest_{15 * channel + k}"][gaussian] == harmonics[gaussian, k, channel]
    assert torch.equal(read_ply(tmp_path / "g.ply")["harmonics"], harmonics)


def test_a_lower_degree_is_padded_with_zeros(tmp_path):
    harmonics = 1 + torch.rand(5, 3, 3)
    write_ply(tmp_path / "g.ply", **some_gaussians(5), harmonics=harmonics)
    vertex = PlyData.read(tmp_path / "g.ply")["vertex"]
    for channel in range(3):
        for k in range(15):
            expected = harmonics[:, k, channel].numpy() if k < 3 else np.zeros(5)
            np.testing.assert_array_equal(vertex[f"f_rest_{15 * channel + k}"], expected)
    back = read_ply(tmp_path / "g.ply")["harmonics"]
    assert torch.equal(back[:, :3], harmonics)
    assert not back[:, 3:].any()


def test_the_note_about_blur_is_a_comment(tmp_path):
    write_ply(tmp_path / "plain.ply", **some_gaussians(3))
    write_ply(tmp_path / "blurred.ply", **some_gaussians(3), blur=1.25e-4)
    assert read_blur(tmp_path / "plain.ply") == 0
    assert read_blur(tmp_path / "blurred.ply") == pytest.approx(1.25e-4)
    for damaged in (b"nan", b"inf", b"-1", b"much"):
        data = (tmp_path / "blurred.ply").read_bytes().replace(b"0.000125", damaged)
        (tmp_path / "damaged.ply").write_bytes(data)
        assert read_blur(tmp_path / "damaged.ply") == 0
    assert PlyData.read(tmp_path / "blurred.ply").comments == ["rewardsds blur variance 0.000125"]
    assert torch.equal(
        read_ply(tmp_path / "plain.ply")["scales"], read_ply(tmp_path / "blurred.ply")["scales"]
    )


def test_no_too_many_or_broken_gaussians_are_explained(tmp_path):
    path = tmp_path / "g.ply"
    write_ply(path, **some_gaussians(5))
    whole = path.read_bytes()
    for data, message in [
        (whole.replace(b"vertex 5", b"vertex 0"), "has 0 Gaussians: expected 1 to 5,000,000"),
        (whole.replace(b"vertex 5", b"vertex 5000001"), "has 5,000,001 Gaussians"),
        (whole.replace(b"vertex 5", b"vertex many"), "does not say how many"),
        (whole.replace(b"property float f_rest_44\n", b"property float other_44\n"), "44 properties f_rest"),
        (whole[:-4] + np.float32(np.nan).tobytes(), "exploded: 1 of its 5"),
    ]:
        path.write_bytes(data)
        with pytest.raises(ValueError, match=message):
            read_ply(path)
    path.unlink()
    broken = some_gaussians(5)
    broken["colours"][2, 1] = torch.nan
    with pytest.raises(ValueError, match="exploded: 1 of its 5"):
        write_ply(path, **broken)
    with pytest.raises(ValueError, match="0 Gaussians"):
        write_ply(path, **{name: value[:0] for name, value in some_gaussians(1).items()})
    with pytest.raises(ValueError, match="0, 3, 8 or 15"):
        write_ply(path, **some_gaussians(2), harmonics=torch.zeros(2, 4, 3))
    assert not path.exists()
