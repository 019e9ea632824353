"""Files that say which prompt each picture was made from."""

from __future__ import annotations

import csv
import io
import json
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any

from rewardsds.errors import SettingsError
from rewardsds.evaluation.prompt_sets import NAMES
from rewardsds.prompts import read_lines, read_text

PICTURE_ENDINGS = (".png", ".jpg", ".jpeg", ".webp")
PICTURE_KEYS = ("file", "image", "picture", "name", "file_name")


@dataclass(frozen=True)
class PromptFile:
    """prompts: in the file's order. pictures: the name that each belongs to; None where the file has prompts alone."""

    path: Path
    prompts: tuple[str, ...]
    pictures: tuple[PurePosixPath, ...] | None = None

    @cached_property
    def _by_last(self) -> dict[str, list[tuple[PurePosixPath, str]]]:
        """Names and prompts by the names' last parts."""
        found: dict[str, list[tuple[PurePosixPath, str]]] = {}
        for name, prompt in zip(self.pictures or (), self.prompts):
            found.setdefault(name.name, []).append((name, prompt))
        return found

    def prompt_of(self, picture: Path) -> str | None:
        """Of the name that agrees with most of the picture's path: "a.png", "own/a.png" and "a" all name own/a.png."""
        found = []
        for last in (picture.name, picture.stem):
            inside = _parts(picture.with_name(last))
            found += [pair for pair in self._by_last.get(last, []) if _ends(inside, pair[0].parts)]
        return max(found, key=lambda pair: len(pair[0].parts))[1] if found else None

    def missing_in(self, folder: Path) -> list[tuple[Path, str]]:
        """Pictures that the file names in a folder and that are not there, with their prompts."""
        pictures = [path for path in folder.iterdir() if is_picture(path)]
        there = {path.name for path in pictures} | {path.stem for path in pictures}
        inside = _parts(folder)
        return [
            (folder / name.name, prompt)
            for name, prompt in zip(self.pictures or (), self.prompts)
            if _ends(inside, name.parts[:-1]) and name.name not in there
        ]


def is_picture(path: Path) -> bool:
    """A file with the ending of a picture; hidden ones are none."""
    return path.suffix.lower() in PICTURE_ENDINGS and not path.name.startswith(".") and path.is_file()


def read_prompt_file(path: Path) -> PromptFile:
    """JSON, JSON lines, CSV or text.

    JSON: a mapping from picture to prompt, or a list of objects with the keys file, image, picture, name or file_name,
    and one of `prompt_sets.NAMES`, such as prompt or caption. CSV: with such columns. Text: a prompt a line; a list or
    table without pictures is the same. Raises SettingsError, in one line, for what is none of these.
    """
    ending = path.suffix.lower()
    if ending not in (".json", ".jsonl", ".csv"):
        return PromptFile(path, tuple(read_lines(path)))
    text = read_text(path)
    rows = _csv_rows(path, text) if ending == ".csv" else _json_rows(path, text, lines=ending == ".jsonl")
    if not rows:
        raise SettingsError(f"{path} holds no prompts")
    return _from_rows(path, rows)


def natural(path: Path | str) -> tuple[list[str | int], str]:
    """A key to sort by, in which picture 2 comes before picture 10."""
    parts = re.split(r"(\d+)", str(path))
    return [int(part) if index % 2 else part.casefold() for index, part in enumerate(parts)], str(path)


def _parts(path: Path) -> tuple[str, ...]:
    return Path(os.path.abspath(path)).parts


def _ends(whole: tuple[str, ...], end: tuple[str, ...]) -> bool:
    return whole[len(whole) - len(end) :] == end


def _json_rows(path: Path, text: str, lines: bool) -> list[Mapping[str, Any]]:
    """Objects with a prompt, and with a picture where it is known."""

    def whole(pairs: Iterable[tuple[str, Any]]) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for key, value in pairs:
            if found.setdefault(key, value) != value:
                raise SettingsError(f"{path} says {key!r} twice, and not the same")
        return found

    try:
        if lines:
            values: Any = [
                json.loads(line, object_pairs_hook=whole) for line in text.splitlines() if line.strip()
            ]
        else:
            values = json.loads(text, object_pairs_hook=whole)
    except json.JSONDecodeError as error:
        raise SettingsError(f"{path} is no JSON: {error}") from None
    if isinstance(values, dict):
        return [{"file": name, "prompt": prompt} for name, prompt in values.items()]
    if isinstance(values, list):
        rows: list[Any] = [{"prompt": value} if isinstance(value, str) else value for value in values]
        if all(isinstance(row, dict) for row in rows):
            return rows
    raise SettingsError(
        f"{path} holds no prompts: expected a mapping from picture to prompt, or a list of objects"
    )


def _csv_rows(path: Path, text: str) -> list[Mapping[str, Any]]:
    reader = csv.DictReader(io.StringIO(text, newline=""), skipinitialspace=True)
    names = [name.strip().lower() for name in reader.fieldnames or ()]
    if not set(names) & set(NAMES):
        raise SettingsError(
            f"{path} has the columns {', '.join(names) or 'none'}: expected one of {', '.join(NAMES)}, "
            f"and one of {', '.join(PICTURE_KEYS)}"
        )
    reader.fieldnames = names
    try:
        return list(reader)
    except csv.Error as error:
        raise SettingsError(f"{path} is no CSV: {error}") from None


def _from_rows(path: Path, rows: Sequence[Mapping[str, Any]]) -> PromptFile:
    named: dict[PurePosixPath, str] = {}
    prompts: list[str] = []
    for number, row in enumerate(rows, 1):
        prompt, picture = _one_of(row, NAMES), _one_of(row, PICTURE_KEYS)
        if not isinstance(prompt, str) or not prompt.strip():
            raise SettingsError(f"{path}, entry {number}: expected a text under {', '.join(NAMES)}")
        prompt = " ".join(prompt.split())
        prompts.append(prompt)
        if picture is None:
            continue
        name = PurePosixPath(str(picture).strip())
        if ".." in name.parts:
            name = PurePosixPath(os.path.abspath(path.parent / name))
        if not name.name:
            raise SettingsError(f"{path}, entry {number}: it names no picture")
        if named.setdefault(name, prompt) != prompt:
            raise SettingsError(f"{path} says {str(name)!r} twice, and not the same")
    if not named:
        return PromptFile(path, tuple(prompts))
    bare = [number for number, row in enumerate(rows, 1) if _one_of(row, PICTURE_KEYS) is None]
    if bare:
        raise SettingsError(f"{path}, entry {bare[0]}: expected a picture under {', '.join(PICTURE_KEYS)}")
    return PromptFile(path, tuple(named.values()), tuple(named))


def _one_of(row: Mapping[str, Any], keys: Sequence[str]) -> Any:
    """The first of some keys' values; empty ones are not there."""
    return next((row[key] for key in keys if row.get(key) not in (None, "")), None)
