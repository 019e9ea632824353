"""Sets of prompts: the toybox's benchmark, the paper's, and files that users have. Nothing heavy is imported here.

toybox:test:25      25 prompts of the toybox's test split, whose pairs of toys no training caption names
toybox:validation   32 of its validation split, for tuning
paper               the 22 prompts of RewardSDS' NeRFs (arXiv 2503.09601)
FILE.txt            one a line, as T3Bench and T2I-CompBench have them; empty lines and # comments are left out
FILE.csv, .tsv      the column prompt, prompts, caption or text, as DrawBench has it
FILE.json           a list of texts or of mappings with one of these names, or COCO's captions (annotations)
FILE.jsonl          one such mapping, or one text, a line
"""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, cast

from rewardsds.errors import SettingsError, describe_os_error
from rewardsds.prompts import read_lines

PAPER = (
    "A basketball player dunking a basketball",
    "A basketball player in a red jersey, high resolution, 4K",
    "A bulldog wearing a black pirate hat",
    "A cartoon cat eating a cheesecake, realistic",
    "a DSLR photo of a ghost eating a hamburger",
    "A guitar player on stage, high quality, realistic, HD, 8K",
    "A man with a beard, wearing a suit, holding a pink briefcase, high quality, realistic, HD",
    "A penguin with a brown bag in the snow",
    "A man with a red scarf, highly detailed, 4K",
    "A shitzu with a bowtie, high quality, realistic, HD, 8K",
    "A skyscraper that reaches the clouds, high quality, realistic",
    "A tiger in the jungle, high quality, realistic, HD",
    "A white sofa next to a brown wooden table",
    "A young girl flying a kite, high quality",
    "An astronaut riding a horse",
    "Argentinian football player, celebrating a goal, HD",
    "Corgi riding a rocket",
    "King Kong climbing the Empire State Building",
    "Mini China town, highly detailed, 8K, HD",
    "Red drum set, high quality, realistic, HD, 8K",
    "Two dogs in the park",
    "World cup trophy, high quality, realistic, HD",
)
"""Prompts of the text-to-3D comparison with NeRFs (arXiv 2503.09601, appendix)."""

TOYBOX_PROMPTS = 32
"""Of a split, where no number is given."""
NAMES = ("prompt", "prompts", "caption", "captions", "text")
"""Columns and keys under which files keep a prompt, whatever their case."""

_TOYBOX = re.compile(r"toybox:(?P<split>\w+)(?::(?P<count>\d+))?")


def read_prompts(source: str | Path) -> list[str]:
    """The prompts of a set or a file, in its order. Raises SettingsError, in one line, for what is neither.

    Of COCO's captions, of which a picture has about five, the first of each picture is taken.
    """
    named = None if isinstance(source, Path) else _named_set(source)
    if named is not None:
        return named
    path = Path(source)
    prompts = [" ".join(prompt.split()) for prompt in _from_file(path) if prompt.strip()]
    if not prompts:
        raise SettingsError(f"{path} holds no prompts")
    return prompts


def _named_set(name: str) -> list[str] | None:
    if name == "paper":
        return list(PAPER)
    if not name.startswith("toybox"):
        return None
    from rewardsds.toybox.captions import Split, benchmark_prompts, embedded_kinds
    from rewardsds.toybox.splits import SPLITS

    found = _TOYBOX.fullmatch(name)
    if found is None or found["split"] not in SPLITS:
        raise SettingsError(
            f"no set of prompts {name!r}: expected toybox:test, toybox:validation or toybox:train, "
            "with a number behind a colon, such as toybox:test:25"
        )
    count = int(found["count"] or TOYBOX_PROMPTS)
    try:
        return benchmark_prompts(count, cast("Split", found["split"]), kinds=embedded_kinds())
    except ValueError as error:
        raise SettingsError(f"the set of prompts {name!r} cannot be made: {error}") from None


def _from_file(path: Path) -> Iterable[str]:
    ending = path.suffix.lower()
    if ending not in (".csv", ".tsv", ".json", ".jsonl") and path.is_file():
        return read_lines(path)
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise SettingsError(
            f"no prompts in {str(path)!r}: there is no such file; expected a file (.txt, .csv, .tsv, .json, .jsonl), "
            "paper, or a set of the toybox such as toybox:test:25"
        ) from None
    except UnicodeDecodeError:
        raise SettingsError(f"cannot read the prompts in {path}: it is no text in UTF-8") from None
    except OSError as error:
        raise SettingsError(f"cannot read the prompts ({describe_os_error(error, path)})") from None
    try:
        if ending in (".csv", ".tsv"):
            return _from_table(text, path, "\t" if ending == ".tsv" else ",")
        if ending == ".json":
            return _from_json(json.loads(text), path)
        return _from_json([json.loads(line) for line in text.splitlines() if line.strip()], path)
    except json.JSONDecodeError as error:
        raise SettingsError(f"cannot read the prompts in {path}: it is no JSON ({error})") from None


def _from_table(text: str, path: Path, delimiter: str) -> list[str]:
    rows = csv.DictReader(io.StringIO(text), delimiter=delimiter)
    column = named(rows.fieldnames or ())
    if column is None:
        raise SettingsError(
            f"{path} has no column of prompts: its first line should name one of {', '.join(NAMES)}, "
            f"it is {', '.join(rows.fieldnames or ()) or 'empty'}"
        )
    return [row[column] or "" for row in rows]


def _from_json(values: Any, path: Path) -> list[str]:
    if isinstance(values, Mapping) and isinstance(values.get("annotations"), list):
        first: dict[Any, str] = {}
        for one in values["annotations"]:
            if isinstance(one, Mapping) and isinstance(one.get("caption"), str):
                first.setdefault(one.get("image_id"), one["caption"])
        return list(first.values())
    key = named(values) if isinstance(values, Mapping) else None
    if isinstance(values, Mapping) and key is not None:
        values = values[key]
    if not isinstance(values, list):
        raise SettingsError(
            f"{path} holds no prompts: expected a list of texts, or of mappings with one of {', '.join(NAMES)}, or "
            "COCO's captions"
        )
    return [_text(one, path) for one in values]


def _text(one: Any, path: Path) -> str:
    key = named(one) if isinstance(one, Mapping) else None
    text = one if key is None else one[key]
    if not isinstance(text, str):
        raise SettingsError(
            f"{path} holds {str(text)[:60]!r} in place of a prompt: expected a text, or a mapping with one of "
            f"{', '.join(NAMES)}"
        )
    return text


def named(keys: Iterable[str], wanted: tuple[str, ...] = NAMES) -> str | None:
    """The first of the wanted names among keys, whatever its case."""
    lower = {str(key).strip().lower(): key for key in keys}
    return next((lower[name] for name in wanted if name in lower), None)
