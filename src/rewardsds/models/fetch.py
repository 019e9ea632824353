"""Downloads from the Hugging Face hub: the only thing here that downloads without a run asking for it."""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rewardsds.catalogue import KnownModel, find
from rewardsds.errors import RewardsdsError
from rewardsds.hub import BESIDE_WEIGHTS, files_of, offline_variable, reason, repositories, snapshot


def fetch(model: KnownModel, revision: str | None = None, folder: Path | None = None) -> Path:
    """The folder of a model's files, or the file itself where it is a single one; what is there already is kept.

    A download that was interrupted goes on where it stopped. What the model needs beside it, a tokenizer or a CLIP,
    goes into the hub's cache, where loaders look. revision: branch, tag or commit; None is the one that the catalogue
    pins, or the newest. folder: where to put the files; None is the hub's cache.

    Raises RewardsdsError where the hub does not give it, naming what was asked.
    """
    if (variable := offline_variable()) is not None:
        raise RewardsdsError(
            f"{variable} is set, so nothing is downloaded: unset it to fetch {model.name}, or put its files "
            f"into a folder by hand ({', '.join(model.repos)})"
        )
    failures = []
    for repo in model.repos:
        try:
            found = _download(model, repo, revision, folder)
        except (OSError, ValueError) as error:
            failures.append(f"{repo}: {reason(error)}")
        else:
            for needed in model.needs:
                _download_companion(needed, whole=model.recipe == "aesthetic")
            return found
    raise RewardsdsError(
        f"{model.name} was not downloaded ({'; '.join(failures)}): check the network and the disk, or get the files "
        "elsewhere and give their folder"
    )


def _download(model: KnownModel, repo: str, revision: str | None, folder: Path | None) -> Path:
    found = snapshot(repo, files_of(model), revision, folder)
    missing = [name for name in model.files if not (found / name).is_file()]
    if missing:
        raise ValueError(f"it has no {', '.join(missing)}")
    if not model.files and not any(found.rglob("*.safetensors")):
        raise ValueError("it has no weights as safetensors")
    if model.scored:
        _write_beside(found / "reward.json", model.scored)
    return found / model.files[0] if len(model.files) == 1 else found


def _write_beside(path: Path, content: Mapping[str, Any]) -> None:
    """What the files do not say of themselves, for who loads them from their folder; what is there is kept."""
    if not path.exists():
        path.write_text(json.dumps(dict(content), indent=2) + "\n", encoding="utf-8")


def _download_companion(needed: str, whole: bool) -> None:
    """A tokenizer's files, or the whole model, of the first repository that gives them; what does not come is told, and
    can be given by hand."""
    model = find(needed)
    files = files_of(model) if whole and model is not None else BESIDE_WEIGHTS
    failures = []
    for repo in repositories(needed):
        try:
            found = snapshot(repo, files)
        except (OSError, ValueError) as error:
            failures.append(f"{repo}: {reason(error)}")
        else:
            if any(path.is_file() for path in found.rglob("*")):
                return
            failures.append(f"{repo}: it has none of the files")
    warnings.warn(
        f"{needed}, which is needed beside it, was not downloaded ({'; '.join(failures)}): give a folder of it when "
        "you convert, with --companion FOLDER",
        stacklevel=3,
    )
