"""Editing, from the command to the files, with small random models."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from rewardsds.cli import main
from rewardsds.priors.load import load_prior
from rewardsds.tasks.edit import Closeness


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    values = np.random.default_rng(0).integers(0, 255, (40, 60, 3), dtype=np.uint8)
    Image.fromarray(values).save(tmp_path / "photo.png")
    return tmp_path / "photo.png"


@pytest.fixture
def tiny(tiny_prior_folder: Path, tiny_clip_folder: Path, tmp_path: Path) -> list[str]:
    return [
        "--prior", str(tiny_prior_folder), "--reward", str(tiny_clip_folder), "--device", "cpu", "--threads", "1",
        "--steps", "3", "--out", str(tmp_path / "run"),
    ]  # fmt: skip


def load(path: Path) -> np.ndarray:
    return np.asarray(Image.open(path).convert("RGB"), np.float32) / 255


def test_an_edit_leaves_result_source_and_difference(picture: Path, tiny: list[str], tmp_path: Path) -> None:
    words = ["--source", "a red apple", "--target", "a green apple"]
    assert main(["edit", str(picture), *words, *tiny]) == 0
    run = tmp_path / "run"
    after, before, difference = (load(run / f"{name}.png") for name in ("image", "before", "difference"))
    assert after.shape == before.shape == (16, 16, 3)
    np.testing.assert_allclose(difference, np.abs(after - before), atol=1.5 / 255)
    page = (run / "report.html").read_text()
    assert page.count("data:image/png;base64,") >= 3
    assert "a green apple" in page


def test_plain_dds_with_equal_prompts_changes_nothing(
    picture: Path, tiny: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Both residuals are the same, so the latent stays where the encoder put it."""
    words = ["--source", "a red apple", "--target", "a red apple", "--weighting", "none"]
    assert main(["edit", str(picture), *words, *tiny]) == 0
    assert "source and target say the same" in capsys.readouterr().err
    run = tmp_path / "run"
    prior = load_prior(tiny[tiny.index("--prior") + 1], "cpu")
    before = torch.from_numpy(load(run / "before.png")).permute(2, 0, 1)
    with torch.no_grad():
        expected = prior.decode(prior.encode(before[None, None]))[0, 0].permute(1, 2, 0).numpy()
    np.testing.assert_allclose(load(run / "image.png"), expected, atol=1.5 / 255)


def test_keep_needs_no_second_model(picture: Path, tiny: list[str], tmp_path: Path) -> None:
    words = ["--source", "a red apple", "--target", "a green apple", "--keep", "2"]
    assert main(["edit", str(picture), *words, *tiny]) == 0
    assert (tmp_path / "run" / "image.png").exists()


def test_closeness_by_hand() -> None:
    picture = torch.zeros(3, 4, 4)
    images = torch.zeros(2, 1, 2, 3, 4, 4)
    images[1, 0, 0] = 0.5  # one of two views is half a unit away
    torch.testing.assert_close(Closeness(picture)(images, ["x"]), torch.tensor([[0.0], [-0.25]]))


@pytest.mark.parametrize(
    "make, told",
    [
        (lambda path: None, "photo"),
        (lambda path: path.write_bytes(b"not a picture"), "photo"),
        (lambda path: Image.new("RGB", (1, 1)).save(path), "1"),
    ],
)
def test_pictures_that_cannot_be_used(
    make, told: str, tiny: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "photo.png"
    make(path)
    words = ["--source", "a red apple", "--target", "a green apple"]
    assert main(["edit", str(path), *words, *tiny]) == 1
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    assert lines[0].startswith("rewardsds: error: ")
    assert told in lines[0]
    assert not (tmp_path / "run").exists()


def test_an_edit_goes_on_where_a_reward_may_fail(
    picture: Path,
    tiny: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "nowhere.py").write_text(
        "def nan(images, prompts):\n    return images.new_full(images.shape[:2], float('nan'))\n"
    )
    monkeypatch.chdir(tmp_path)
    words = ["--source", "a red apple", "--target", "a green apple", "--keep", "2", "--reward", "nowhere:nan"]
    del tiny[tiny.index("--reward") : tiny.index("--reward") + 2]
    assert main(["edit", str(picture), *words, *tiny, "--reward-failures", "skip"]) == 0
    assert "going on without the reward nan" in capsys.readouterr().err
    assert (tmp_path / "run" / "image.png").exists()
