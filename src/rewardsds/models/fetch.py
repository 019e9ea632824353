"""Downloads from the Hugging Face hub: the only thing here that downloads without a run asking for it."""

from __future__ import annotations

import os
import warnings
from pathlib import Path

from rewardsds.catalogue import KnownModel
from rewardsds.errors import RewardsdsError

LAYOUT = ("*.json", "*.txt", "*.model", "*.safetensors")
"""What models in the diffusers and transformers layouts are made of, without pickles."""
SKIPPED = ("*.onnx*", "*.msgpack", "*.h5", "*non_ema*", "safety_checker/*", "*pruned*", "flax*", "tf_*")


def fetch(model: KnownModel, revision: str | None = None, folder: Path | None = None) -> Path:
    """The folder of a model's files, or the file itself where it is a single one; what is there already is kept.

    A download that was interrupted goes on where it stopped. What the model needs beside it, a tokenizer or a CLIP,
    goes into the hub's cache, where loaders look. revision: branch, tag or commit; None is the one that the catalogue
    pins, or the newest. folder: where to put the files; None is the hub's cache.

    Raises RewardsdsError where the hub does not give it, naming what was asked.
    """
    if os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "TRUE", "YES", "ON"):
        raise RewardsdsError(
            f"HF_HUB_OFFLINE is set, so nothing is downloaded: unset it to fetch {model.name}, or put its files "
            f"into a folder by hand ({', '.join(model.repos)})"
        )
    failures = []
    for repo in model.repos:
        try:
            pinned = model.revision if repo == model.repos[0] else None
            found = _download(model, repo, revision or pinned, folder)
        except (OSError, ValueError) as error:
            reason = next(iter(str(error).strip().splitlines()), "") or type(error).__name__
            failures.append(f"{repo}: {reason[:120]}")
        else:
            for needed in model.needs:
                _download_companion(needed, whole=model.recipe == "aesthetic")
            return found
    raise RewardsdsError(
        f"{model.name} was not downloaded ({'; '.join(failures)}): check the network and the disk, or get the files "
        "elsewhere and give their folder"
    )


def _download(model: KnownModel, repo: str, revision: str | None, folder: Path | None) -> Path:
    from huggingface_hub import snapshot_download

    found = Path(
        snapshot_download(
            repo,
            revision=revision,
            local_dir=folder,
            allow_patterns=list(model.files or LAYOUT),
            ignore_patterns=list(SKIPPED),
        )
    )
    missing = [name for name in model.files if not (found / name).is_file()]
    if missing:
        raise ValueError(f"it has no {', '.join(missing)}")
    return found / model.files[0] if len(model.files) == 1 else found


def _download_companion(repo: str, whole: bool) -> None:
    """A tokenizer's files, or the whole model; what does not come is told, and can be given by hand."""
    from huggingface_hub import snapshot_download

    patterns: list[str] = [*LAYOUT] if whole else ["*.json", "*.txt"]
    try:
        snapshot_download(repo, allow_patterns=patterns, ignore_patterns=list(SKIPPED))
    except (OSError, ValueError) as error:
        reason = next(iter(str(error).strip().splitlines()), "") or type(error).__name__
        warnings.warn(
            f"{repo}, which is needed beside it, was not downloaded ({reason[:120]}): give a folder of it when you "
            "convert, with --companion FOLDER",
            stacklevel=3,
        )
