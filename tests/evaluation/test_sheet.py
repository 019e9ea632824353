"""The contact sheet: where pictures and words stand in it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from rewardsds.evaluation.sheet import draw_sheet, wrapped

GREY = (217, 217, 217)


def picture(folder: Path, name: str, colour: tuple[int, int, int], size: tuple[int, int] = (64, 64)) -> Path:
    path = folder / f"{name}.png"
    Image.new("RGB", size, colour).save(path)
    return path


def colours(path: Path) -> dict[tuple[int, int, int], np.ndarray]:
    """Where each colour stands: (top, left, bottom, right), inclusive."""
    pixels = np.asarray(Image.open(path))
    found = {}
    for colour in np.unique(pixels.reshape(-1, 3), axis=0):
        places = np.argwhere((pixels == colour).all(-1))
        found[tuple(int(value) for value in colour)] = np.concatenate([places.min(0), places.max(0)])
    return found


def test_rows_are_prompts_and_columns_methods(tmp_path):
    red, green, blue = (255, 0, 0), (0, 255, 0), (0, 0, 255)
    given = {
        ("SDS", "a"): picture(tmp_path, "1", red), ("RewardSDS", "a"): picture(tmp_path, "2", green),
        ("RewardSDS", "b"): picture(tmp_path, "3", blue),
    }  # fmt: skip
    draw_sheet(given, ["a", "b"], ["SDS", "RewardSDS"], tmp_path / "sheet.png")
    found = colours(tmp_path / "sheet.png")
    for one in (red, green, blue):
        top, left, bottom, right = found[one]
        assert (bottom - top + 1, right - left + 1) == (128, 128)  # small pictures are enlarged
    assert found[red][0] == found[green][0]
    assert found[red][2] < found[blue][0]
    assert found[green][1] == found[blue][1] > found[red][3]
    y, x = found[blue][0], found[red][1]  # what is missing
    assert (np.asarray(Image.open(tmp_path / "sheet.png"))[y : y + 128, x : x + 128] == GREY).all()


def test_large_pictures_are_left_as_they_are(tmp_path):
    wide = picture(tmp_path, "wide", (9, 8, 7), (384, 96))
    draw_sheet({("m", "p"): wide}, ["p"], ["m"], tmp_path / "sheet.png")
    top, left, bottom, right = colours(tmp_path / "sheet.png")[9, 8, 7]
    assert (bottom - top + 1, right - left + 1) == (96, 384)


def test_nothing_to_show(tmp_path):
    with pytest.raises(ValueError, match="no picture"):
        draw_sheet({}, ["a"], ["m"], tmp_path / "sheet.png")
    assert not (tmp_path / "sheet.png").exists()


def test_words_are_wrapped_and_never_lost():
    text = "SDS, best of as many as RewardSDS costs"
    lines = wrapped(text, 128)
    assert " ".join(lines) == text
    assert len(lines) > 1
    assert wrapped("", 10) == [""]
    assert wrapped("a hat → a car", 200) == ["a hat -> a car"]  # what the font cannot draw
    (cut,) = wrapped("incomprehensibilities", 60)
    assert cut.endswith("…")
