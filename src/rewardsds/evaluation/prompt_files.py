"""Files of prompts, and of which prompt each picture was made from.

FILE.txt            one a line, as T3Bench and T2I-CompBench have them; empty lines and # comments are left out
FILE.csv, .tsv      the column prompt, prompts, caption, captions or text, as DrawBench has it
FILE.json           a list of texts or of mappings with one of these names, a mapping from one of them to a list, or
                    COCO's captions (annotations), of which the first of each picture is taken; or a mapping from
                    picture to prompt
FILE.jsonl          one such mapping, or one text, a line

Names are read in any case.
"""

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
from rewardsds.prompts import read_lines, read_text

PICTURE_ENDINGS = (".png", ".jpg", ".jpeg", ".webp")
FILE_ENDINGS = (".csv", ".tsv", ".json", ".jsonl")
"""Of files of prompts that are not one prompt a line."""
NAMES = ("prompt", "prompts", "caption", "captions", "text")
"""Columns and keys under which files keep a prompt."""
PICTURE_KEYS = ("file", "image", "picture", "name", "file_name")
"""Those under which they keep a picture's name."""


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


def read_prompts_in(path: Path) -> list[str]:
    """The prompts of a file, whatever pictures it names; empty ones are left out.

    Raises SettingsError, in one line, for what is no such file, and where none is left.
    """
    prompts = [_prompt(path, number, row) for number, row in enumerate(_rows(path), 1)]
    if not any(prompts):
        raise SettingsError(f"{path} holds no prompts")
    return [prompt for prompt in prompts if prompt]


def read_prompt_file(path: Path) -> PromptFile:
    """Which prompt belongs to which picture.

    With the keys or columns file, image, picture, name or file_name beside the prompt, or a JSON mapping from picture
    to prompt; without pictures, prompts in the order of the pictures. Raises SettingsError, in one line, for what is
    none of these.
    """
    named: dict[PurePosixPath, str] = {}
    prompts: list[str] = []
    bare: list[int] = []
    for number, row in enumerate(_rows(path), 1):
        prompt, picture = _prompt(path, number, row), _one_of(row, PICTURE_KEYS)
        if not prompt:
            raise SettingsError(f"{path}, entry {number}: expected a text under {', '.join(NAMES)}")
        prompts.append(prompt)
        if picture is None:
            bare.append(number)
            continue
        name = PurePosixPath(str(picture).strip())
        if ".." in name.parts:
            name = PurePosixPath(os.path.abspath(path.parent / name))
        if not name.name:
            raise SettingsError(f"{path}, entry {number}: it names no picture")
        if named.setdefault(name, prompt) != prompt:
            raise SettingsError(f"{path} says {str(name)!r} twice, and not the same")
    if not prompts:
        raise SettingsError(f"{path} holds no prompts")
    if not named:
        return PromptFile(path, tuple(prompts))
    if bare:
        raise SettingsError(f"{path}, entry {bare[0]}: expected a picture under {', '.join(PICTURE_KEYS)}")
    return PromptFile(path, tuple(named.values()), tuple(named))


def natural(path: Path | str) -> tuple[list[str | int], str]:
    """A key to sort by, in which picture 2 comes before picture 10."""
    parts = re.split(r"(\d+)", str(path))
    return [int(part) if index % 2 else part.casefold() for index, part in enumerate(parts)], str(path)


def _parts(path: Path) -> tuple[str, ...]:
    return Path(os.path.abspath(path)).parts


def _ends(whole: tuple[str, ...], end: tuple[str, ...]) -> bool:
    return whole[len(whole) - len(end) :] == end


# --- what lies in a file -------------------------------------------------------------------------------------


def _rows(path: Path) -> list[Mapping[str, Any]]:
    """What a file holds, a mapping a prompt; keys are in lower case. A line of text has the key prompt."""
    ending = path.suffix.lower()
    if ending not in FILE_ENDINGS:
        return [{"prompt": line} for line in read_lines(path)]
    text = read_text(path)
    if ending in (".csv", ".tsv"):
        return _of_table(path, text, "\t" if ending == ".tsv" else ",")
    return _of_values(path, _values(path, text, lines=ending == ".jsonl"))


def _of_table(path: Path, text: str, delimiter: str) -> list[Mapping[str, Any]]:
    reader = csv.DictReader(io.StringIO(text, newline=""), delimiter=delimiter, skipinitialspace=True)
    names = [name.strip().lower() for name in reader.fieldnames or ()]
    if not set(names) & set(NAMES):
        raise SettingsError(
            f"{path} has no column of prompts: its first line should name one of {', '.join(NAMES)}, it is "
            f"{', '.join(names) or 'empty'}"
        )
    reader.fieldnames = names
    try:
        return list(reader)
    except csv.Error as error:
        raise SettingsError(f"{path} is no CSV: {error}") from None


def _values(path: Path, text: str, lines: bool) -> Any:
    """What JSON says. A key that an object says twice must say the same."""

    def whole(pairs: Iterable[tuple[str, Any]]) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for key, value in pairs:
            if found.setdefault(key, value) != value:
                raise SettingsError(f"{path} says {key!r} twice, and not the same")
        return found

    try:
        if lines:
            return [json.loads(line, object_pairs_hook=whole) for line in text.splitlines() if line.strip()]
        return json.loads(text, object_pairs_hook=whole)
    except json.JSONDecodeError as error:
        raise SettingsError(f"{path} is no JSON: {error}") from None


def _of_values(path: Path, values: Any) -> list[Mapping[str, Any]]:
    if isinstance(values, Mapping):
        if isinstance(values.get("annotations"), list):
            return _of_coco(values)
        lists = [value for key, value in values.items() if key.lower() in NAMES and isinstance(value, list)]
        if not lists:
            return [{"file": name, "prompt": prompt} for name, prompt in values.items()]
        values = lists[0]
    if not isinstance(values, list):
        raise SettingsError(
            f"{path} holds no prompts: expected a list of texts, a list of objects with one of {', '.join(NAMES)}, a "
            "mapping from picture to prompt, or COCO's captions"
        )
    return [
        {key.lower(): part for key, part in value.items()}
        if isinstance(value, Mapping)
        else {"prompt": value}
        for value in values
    ]


def _of_coco(values: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The first caption of each picture, which has about five, with the picture's name where it is said."""
    images = values.get("images")
    images = [one for one in images if isinstance(one, Mapping)] if isinstance(images, list) else []
    names = {one.get("id"): one.get("file_name") for one in images}
    first: dict[Any, Any] = {}
    for one in values["annotations"]:
        if isinstance(one, Mapping) and "caption" in one:
            first.setdefault(one.get("image_id"), one["caption"])
    return [{"file": names.get(image), "prompt": caption} for image, caption in first.items()]


def _prompt(path: Path, number: int, row: Mapping[str, Any]) -> str:
    """A row's prompt, each run of white space one space; "" where it has none."""
    prompt = _one_of(row, NAMES)
    if prompt is None:
        return ""
    if not isinstance(prompt, str):
        raise SettingsError(
            f"{path}, entry {number}: expected a text under {', '.join(NAMES)}, it is {str(prompt)[:60]!r}"
        )
    return " ".join(prompt.split())


def _one_of(row: Mapping[str, Any], keys: Sequence[str]) -> Any:
    """The first of some keys' values; empty ones are not there."""
    return next((row[key] for key in keys if row.get(key) not in (None, "")), None)
