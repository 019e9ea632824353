"""The contact sheet of a comparison: one row a prompt, one column a method."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from rewardsds.scenes.export import shortened
from rewardsds.scenes.files import atomic_path

LEAST_WIDTH = 112  # of a picture; smaller ones are enlarged by a whole number
LABEL_WIDTH, MARGIN, LINE = 140, 6, 16
TEXT_SIZE = 13


def draw_sheet(
    pictures: Mapping[tuple[str, str], Path], labels: Sequence[str], methods: Sequence[str], path: Path
) -> None:
    """Writes a PNG. pictures: files by (method, label); where there is none, its place is grey.

    Raises ValueError where there is no picture at all.
    """
    loaded: dict[tuple[str, str], Image.Image] = {}
    for place, file in pictures.items():
        with Image.open(file) as picture:
            loaded[place] = picture.convert("RGB")
    if not loaded:
        raise ValueError("there is no picture to show")
    factor = -(-LEAST_WIDTH // max(picture.width for picture in loaded.values()))
    width = factor * max(picture.width for picture in loaded.values())
    height = factor * max(picture.height for picture in loaded.values())
    heads = [wrapped(method, width) for method in methods]
    head = LINE * max(map(len, heads))
    rows = [wrapped(label, LABEL_WIDTH) for label in labels]
    heights = [max(height, LINE * len(row)) for row in rows]
    across = MARGIN + LABEL_WIDTH + sum(width + MARGIN for _ in methods) + MARGIN
    down = MARGIN + head + sum(one + MARGIN for one in heights) + MARGIN
    sheet = Image.new("RGB", (across, down), "white")
    draw = ImageDraw.Draw(sheet)
    lefts = [MARGIN + LABEL_WIDTH + MARGIN + index * (width + MARGIN) for index in range(len(methods))]
    for left, lines in zip(lefts, heads, strict=True):
        _write(draw, (left, MARGIN), lines)
    top = MARGIN + head + MARGIN
    for label, lines, row_height in zip(labels, rows, heights, strict=True):
        _write(draw, (MARGIN, top), lines)
        for left, method in zip(lefts, methods, strict=True):
            picture = loaded.get((method, label))
            if picture is None:
                draw.rectangle((left, top, left + width - 1, top + height - 1), fill=(217, 217, 217))
            else:
                size = picture.width * factor, picture.height * factor
                sheet.paste(picture.resize(size, Image.Resampling.NEAREST), (left, top))
        top += row_height + MARGIN
    with atomic_path(path) as temporary:
        sheet.save(temporary, format="PNG")


def wrapped(text: str, width: int) -> list[str]:
    """The text in lines of at most so many pixels; a word that is longer is cut."""
    font = ImageFont.load_default(size=TEXT_SIZE)
    lines: list[str] = []
    for word in text.replace("→", "->").split():  # the font has no arrow
        word = shortened(word, width, font)
        if lines and font.getlength(f"{lines[-1]} {word}") <= width:
            lines[-1] += f" {word}"
        else:
            lines.append(word)
    return lines or [""]


def _write(draw: ImageDraw.ImageDraw, place: tuple[int, int], lines: Sequence[str]) -> None:
    font = ImageFont.load_default(size=TEXT_SIZE)
    for index, line in enumerate(lines):
        draw.text((place[0], place[1] + LINE * index), line, fill="black", font=font)
