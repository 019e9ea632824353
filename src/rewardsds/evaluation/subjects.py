"""What is scored: pictures and runs that paths name, each with its prompt, and how they are looked at."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from rich.console import Console

from rewardsds.errors import SettingsError
from rewardsds.evaluation.metrics import Subject
from rewardsds.evaluation.prompt_files import (
    PICTURE_ENDINGS,
    PromptFile,
    is_picture,
    natural,
    read_prompt_file,
)
from rewardsds.evaluation.views import VIEWS, ViewKind, cameras_of
from rewardsds.rewards.load import reward_names
from rewardsds.runs.folder import RunFolder
from rewardsds.scenes.export import render_turntable
from rewardsds.scenes.object3d import Object3D
from rewardsds.scenes.pictures import read_whole_picture
from rewardsds.tasks.objects import load_objects
from rewardsds.tasks.run import settings_from
from rewardsds.tasks.settings import EditSettings, TextTo3DSettings, TextToImageSettings
from rewardsds.tasks.text_to_image import file_names

LONGEST_REASON = 160
TOYBOX_SIZE = 64
"""Pixels of an object's pictures where the run's prior is the toybox's; its judges and rewards see as many."""


@dataclass(frozen=True)
class Entry:
    """One thing to score: a picture, or an object of a 3D run.

    source: the picture's file, or the folder of the 3D run, of which `particle` counts the objects (None: a picture).
    group: what its scores are averaged with. rewards: what its run was optimised by, single rewards by name.
    prior: its run's. size: pixels that its pictures are rendered at. note: what the user should know.
    error: why it cannot be scored.
    """

    name: str
    group: str
    source: Path
    prompt: str = ""
    seed: int | None = None
    particle: int | None = None
    rewards: tuple[str, ...] = ()
    prior: str | None = None
    size: int = 0
    note: str = ""
    error: str = ""


@dataclass(frozen=True)
class Look:
    """How objects are looked at: from how many cameras, of which kind, at how many pixels (None: the entry's size).

    Random cameras follow from `seed` plus the seed of the object's run: two methods are seen from the same places.
    """

    views: int = VIEWS
    kind: ViewKind = "random"
    seed: int = 0
    size: int | None = None
    device: str = "cpu"


# --- finding ------------------------------------------------------------------------------------------------


def find_entries(
    paths: Sequence[Path], prompts: Path | None = None, groups: Sequence[str] = ()
) -> list[Entry]:
    """What lies at some paths, in their order: pictures, folders of pictures, run folders, folders with runs below.

    prompts: a file that says the prompts of pictures that belong to no run. groups: a name for all, or one a path;
    without them a path is a group, and of runs that lie two levels or more below a path, the first folder below it.

    Raises SettingsError for paths and files that cannot be used. What is wrong with one picture or one run is told in
    its entry's `error`.
    """
    named = _groups(paths, groups)
    file = None if prompts is None else read_prompt_file(prompts)
    alone = sorted((path for path in paths if not path.is_dir()), key=natural)
    of_alone = {entry.source: entry for entry in _pictures(alone, named, file)}
    found: list[Entry] = []
    runs_alone = True
    for path in paths:
        if not path.is_dir():
            runs_alone = False
            found.append(of_alone[path])
            continue
        runs = [path] if RunFolder(path).is_run else list(_runs_below(path, set()))
        if runs:
            for run in runs:
                found += _run(run, named[path] if groups else _group_of(run, path))
        else:
            runs_alone = False
            found += _folder(path, named[path], file)
    if alone and file is not None:
        found += _missing(alone, named if groups else {}, file)
    if file is not None and runs_alone:
        raise SettingsError(
            f"{prompts} names prompts of pictures, but all that is given are runs, which know theirs"
        )
    return found if groups else _apart(found, paths)


def _groups(paths: Sequence[Path], groups: Sequence[str]) -> dict[Path, str]:
    """The group of each path. Raises SettingsError for paths that are not there, or given twice."""
    if not paths:
        raise SettingsError("no PATH is given: expected pictures, folders of pictures or runs")
    seen: set[Path] = set()
    for path in paths:
        if not path.exists():
            raise SettingsError(f"no picture, folder or run {path}")
        if not path.is_dir() and not is_picture(path):
            raise SettingsError(
                f"{path} is no picture: expected {', '.join(PICTURE_ENDINGS)}, a folder or a run"
            )
        if path.resolve() in seen:
            raise SettingsError(f"{path} is given twice")
        seen.add(path.resolve())
    if len(groups) not in (0, 1, len(paths)):
        raise SettingsError(
            f"{len(groups)} groups are named for {len(paths)} paths: give one name for all, or one for each"
        )
    names = (
        [str(path) for path in paths] if not groups else list(groups) * (1 if len(groups) > 1 else len(paths))
    )
    return dict(zip(paths, names, strict=True))


def _runs_below(folder: Path, seen: set[Path]) -> Iterator[Path]:
    """Run folders at any depth, in natural order; links are followed, each folder once."""
    if folder.resolve() in seen:
        return
    seen.add(folder.resolve())
    below = (path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))
    for path in sorted(below, key=natural):
        if RunFolder(path).is_run:
            yield path
        else:
            yield from _runs_below(path, seen)


def _group_of(run: Path, given: Path) -> str:
    """The first folder below the path given, of a run that lies two levels or more below it; else the path."""
    below = run.relative_to(given).parts
    return below[0] if len(below) > 1 else str(given)


def _apart(entries: list[Entry], paths: Sequence[Path]) -> list[Entry]:
    """Groups of one name below different paths get their path before it."""
    homes: dict[str, set[Path]] = {}
    for entry in entries:
        homes.setdefault(entry.group, set()).add(_home(entry, paths))
    return [
        replace(entry, group=str(_home(entry, paths) / entry.group)) if len(homes[entry.group]) > 1 else entry
        for entry in entries
    ]


def _home(entry: Entry, paths: Sequence[Path]) -> Path:
    """The path given that an entry lies below."""
    return next(
        (path for path in paths if entry.source == path or path in entry.source.parents), entry.source
    )


# --- pictures -----------------------------------------------------------------------------------------------


def _folder(folder: Path, group: str, file: PromptFile | None) -> list[Entry]:
    """The pictures in a folder, and those that should be there."""
    pictures = sorted((path for path in folder.iterdir() if is_picture(path)), key=natural)
    if not pictures and (file is None or file.pictures is None):
        raise SettingsError(f"{folder} holds neither pictures ({', '.join(PICTURE_ENDINGS)}) nor runs")
    named = dict.fromkeys([*pictures, folder], group)
    entries = _pictures(pictures, named, file, folder)
    if file is not None:
        entries += [_gone(path, prompt, group, file) for path, prompt in file.missing_in(folder)]
    return sorted(entries, key=lambda entry: natural(entry.source))


def _pictures(
    pictures: Sequence[Path], groups: dict[Path, str], file: PromptFile | None, folder: Path | None = None
) -> list[Entry]:
    """Entries of pictures in natural order. folder: they are all that it holds."""
    if not pictures:
        return []
    bare = [Entry(str(path), groups[path], path) for path in pictures]
    if file is None:
        return [_read_from_name(entry) for entry in bare]
    if file.pictures is None:
        if len(file.prompts) != len(pictures):
            there = f"{folder} holds" if folder else "given are"
            raise SettingsError(
                f"{file.path} has {len(file.prompts)} prompts, but {there} {len(pictures)} pictures: expected one a "
                "picture, in natural order, or a file that names the pictures"
            )
        return [replace(entry, prompt=prompt) for entry, prompt in zip(bare, file.prompts, strict=True)]
    prompts = [file.prompt_of(entry.source) for entry in bare]
    return [
        replace(entry, error=f"{file.path} does not name it")
        if prompt is None
        else replace(entry, prompt=prompt)
        for entry, prompt in zip(bare, prompts, strict=True)
    ]


def _missing(alone: Sequence[Path], groups: dict[Path, str], file: PromptFile) -> list[Entry]:
    """Pictures that a file names beside those that were given one by one, and that are not there.

    They join the group that these were all given, where there is one.
    """
    names = {groups[path] for path in alone if path in groups}
    group = names.pop() if len(names) == 1 else None
    folders = dict.fromkeys(path.parent for path in alone)
    return [
        _gone(path, prompt, group or str(path), file)
        for folder in folders
        for path, prompt in file.missing_in(folder)
    ]


def _gone(path: Path, prompt: str, group: str, file: PromptFile) -> Entry:
    return Entry(str(path), group, path, prompt, error=f"no such picture, and {file.path} names it")


def _read_from_name(entry: Entry) -> Entry:
    prompt = prompt_in(entry.source.name)
    if prompt is None:
        return replace(entry, error="its name says no prompt: give a file of prompts with --prompts")
    return replace(entry, prompt=prompt, note="its prompt was read from its name")


def prompt_in(name: str) -> str | None:
    """What the name of a picture says: "a_red_apple_3.png" → "a red apple"; None where it says nothing.

    A number at the end is left out, and so is the index that the pictures of a run have at the beginning.
    """
    stem = re.sub(r"^image[-_]\d+(?=[-_])", "", Path(name).stem)
    words = [word for word in re.split(r"[-_\s]+", stem) if word]
    if words and words[-1].isdigit():
        words = words[:-1]
    return (
        None if not words or words == ["image"] or all(word.isdigit() for word in words) else " ".join(words)
    )


# --- runs ---------------------------------------------------------------------------------------------------


def _run(run: Path, group: str) -> list[Entry]:
    """What a run has made, or will make."""
    folder = RunFolder(run)
    try:
        settings = settings_from(folder.read_settings())
    except ValueError as error:
        reason = " ".join(str(error).split())
        reason = reason if len(reason) <= LONGEST_REASON else f"{reason[:LONGEST_REASON]}…"
        return [Entry(str(run), group, run, error=f"its settings cannot be read: {reason}")]
    base = Entry(
        str(run),
        group,
        run,
        rewards=reward_names(settings.reward) if settings.needs_reward else (),
        prior=settings.prior,
    )
    if isinstance(settings, TextTo3DSettings):
        return _objects(base, settings)
    if isinstance(settings, TextToImageSettings):
        items = [(text, seed) for text in settings.texts for seed in settings.seeds]
        names = _made(folder, len(items)) or file_names(items)
    else:
        assert isinstance(settings, EditSettings)
        items, names = [(settings.target, settings.seed)], ["image.png"]
    return [
        replace(
            base, name=str(run / name), source=run / name, prompt=text, seed=seed,
            error=_lacks(folder, run / name),
        )
        for name, (text, seed) in zip(names, items, strict=True)
    ]  # fmt: skip


def _objects(base: Entry, settings: TextTo3DSettings) -> list[Entry]:
    seeds = settings.seeds
    return [
        replace(
            base, name=base.name if len(seeds) == 1 else f"{base.name}, seed {seed}", prompt=settings.prompt,
            seed=seed, particle=index, size=size_of(settings),
        )
        for index, seed in enumerate(seeds)
    ]  # fmt: skip


def size_of(settings: TextTo3DSettings) -> int:
    """Pixels at which the objects of a run are looked at, unless said otherwise."""
    return TOYBOX_SIZE if settings.prior == "toybox" else settings.video_size


def _made(folder: RunFolder, count: int) -> list[str]:
    """The pictures that a finished run says it has made, one a prompt and seed, in their order; else nothing.

    They may be named otherwise than by the user's words: by those of them that the prior knows.
    """
    try:
        names = [str(name) for name in folder.read_results()["files"] if str(name).endswith(".png")]
    except (OSError, ValueError, KeyError, TypeError):
        return []
    return names if len(names) == count else []


def _lacks(folder: RunFolder, picture: Path) -> str:
    if not folder.is_finished:
        return f"not finished: finish it with `rewardsds resume {folder.path}`"
    return "" if picture.is_file() else f"no picture {picture}"


# --- looking ------------------------------------------------------------------------------------------------


def look_at(entries: Sequence[Entry], look: Look) -> Iterator[tuple[Entry, Subject | None]]:
    """Every entry with what is seen of it, one after the other; None, and the entry's `error`, where it cannot be."""
    shelf = _Shelf(look.device)
    for entry in entries:
        if entry.error:
            yield entry, None
            continue
        try:
            yield _seen(entry, look, shelf)
        except (ValueError, OSError, RuntimeError) as error:
            yield replace(entry, error=" ".join(str(error).split()) or type(error).__name__), None


@dataclass
class _Shelf:
    """The objects of the run that was read last: those of its particles are asked for one after the other."""

    device: str
    run: Path | None = None
    objects: list[Object3D] = field(default_factory=list)
    said: str = ""

    def take(self, run: Path, particle: int) -> tuple[Object3D, str]:
        """An object and what was said when it was read."""
        if run != self.run:
            self.run = None
            said = io.StringIO()
            self.objects = load_objects(run, Console(file=said, width=10_000), self.device)
            self.run, self.said = run, "; ".join(said.getvalue().splitlines())
        return self.objects[particle], self.said


def _seen(entry: Entry, look: Look, shelf: _Shelf) -> tuple[Entry, Subject]:
    one = None
    if entry.particle is None:
        picture, notes = read_whole_picture(entry.source)
        pictures, note = picture[None], "; ".join(notes)
    else:
        one, note = shelf.take(entry.source, entry.particle)
        cameras = cameras_of(look.kind, look.views, look.seed + (entry.seed or 0)).to(one.device)
        pictures = render_turntable(one.render_images, cameras, look.size or entry.size)
        if not torch.isfinite(pictures).all():
            raise ValueError("its pictures are not finite")
    entry = replace(entry, note="; ".join(text for text in (entry.note, note) if text))
    return entry, Subject(pictures, entry.prompt, one)
