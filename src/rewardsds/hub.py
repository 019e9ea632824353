"""Files of models on the Hugging Face hub, at the commits that the catalogue pins."""

from __future__ import annotations

import json
import logging
import os
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from rewardsds.catalogue import KnownModel, find, pinned

BESIDE_WEIGHTS = ("*.json", "*.txt", "*.model")
"""Tokenizers and configurations."""
PRIOR_FILES = (*BESIDE_WEIGHTS, "*/*.safetensors")
"""In the diffusers layout weights lie in folders; what lies above them is the same once more as a single file."""
SKIPPED = (
    *("*.onnx*", "*.msgpack", "*.h5", "*non_ema*", "*.fp16*", "*pruned*", "flax*", "tf_*"),
    *("safety_checker/*", "vae_1_0/*"),
)


def files_of(model: KnownModel) -> tuple[str, ...]:
    """Patterns of what a model is made of, without pickles."""
    return model.files or (PRIOR_FILES if model.kind == "prior" else (*BESIDE_WEIGHTS, "*.safetensors"))


def snapshot(
    repo: str, files: Sequence[str], revision: str | None = None, folder: Path | None = None
) -> Path:
    """The folder of a repository's files, which are downloaded where they are not there; offline they have to be.

    files: patterns. revision: branch, tag or commit; None: the one that the catalogue pins, or the newest. folder:
    where to put them; None: the hub's cache.

    Raises OSError or ValueError where the hub does not give them.
    """
    from huggingface_hub import model_info, snapshot_download

    revision = revision or pinned(repo)
    try:
        with _without_its_warnings():
            # Where the hub gives nothing, a folder would be taken as whole, whatever it holds; and files of a commit of
            # which the cache has nothing would be asked for again and again, for half a minute.
            unseen = offline_variable() is None and revision is not None and not _is_begun(repo, revision)
            if folder is not None or unseen:
                model_info(repo, revision=revision)
            given = {"revision": revision, "local_dir": folder}
            found = Path(
                snapshot_download(repo, allow_patterns=list(files), ignore_patterns=list(SKIPPED), **given)
            )
            wanted = [name for name in files if name.endswith("*.safetensors")]
            if wanted and offline_variable() is None and (without := _without_weights(found)):
                half = [f"{part}*.fp16*.safetensors" for part in without]  # skipped where there are others
                snapshot_download(repo, allow_patterns=half, **given)
    except failed_transfer() as error:
        if isinstance(error, OSError):
            raise
        kind = type(error).__name__
        what = "the hub cannot be reached" if kind.startswith("Connect") else "the transfer failed"
        raise OSError(f"{what} ({kind}: {error})") from error
    return found


def _without_weights(folder: Path) -> list[str]:
    """The parts of a model of which no weights came, as `unet/`; "" for the folder itself."""
    parts = [config.parent for config in (*folder.glob("config.json"), *folder.glob("*/config.json"))]
    lacks = [part for part in parts if not any(part.glob("*.safetensors"))]
    return ["" if part == folder else f"{part.name}/" for part in lacks]


def _is_begun(repo: str, commit: str) -> bool:
    """Whether the hub's cache has a folder for a repository's files at a commit."""
    return (_place(repo) / "snapshots" / commit).is_dir()


def _place(repo: str) -> Path:
    """Where the hub's cache keeps a repository."""
    return cache_folder() / f"models--{repo.replace('/', '--')}"


def repositories(source: str) -> tuple[str, ...]:
    """Ids that hold the same as `source`, an id or a name, in the order in which they are asked: `source` is the first.

    A text that is of no known model is alone.
    """
    model = find(source)
    if model is None:
        return (source,)
    return model.repos if source == model.name else tuple(dict.fromkeys((source, *model.repos)))


def located(source: str, files: Sequence[str] = ()) -> str | Path:
    """Where a model is loaded from: an id that is pinned is the folder of its files in the hub's cache, see `snapshot`;
    anything else is as it is.

    files: patterns of what is needed; (): the whole model.
    """
    model = find(source)
    if model is None or pinned(source) is None:
        return source
    return snapshot(source, files or files_of(model))


def failed_transfer() -> type[Exception]:
    """The errors of the library that the hub's own speaks HTTP with, which changes with its versions; no OSErrors."""
    from huggingface_hub.errors import HfHubHTTPError

    return HfHubHTTPError.__bases__[0]


_NOISY = ("huggingface_hub._snapshot_download", "huggingface_hub.utils._http")
"""Loggers that tell who calls the hub's library of patterns, folders and accounts; that of a transfer that goes on
where it was interrupted is none of them."""


@contextmanager
def _without_its_warnings() -> Iterator[None]:
    """What the hub's library warns of is for who calls it; what went wrong comes as an error."""
    levels = {logging.getLogger(name): logging.getLogger(name).level for name in _NOISY}
    for logger in levels:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module=r"huggingface_hub\b")
            yield
    finally:
        for logger, level in levels.items():
            logger.setLevel(level)


def cache_folder() -> Path:
    """Of the hub's files."""
    from huggingface_hub.constants import HF_HUB_CACHE

    return Path(HF_HUB_CACHE)


def offline_variable() -> str | None:
    """The environment variable that forbids downloads, as the hub's library has read it; None: they are allowed."""
    from huggingface_hub.constants import HF_HUB_OFFLINE

    if not HF_HUB_OFFLINE:
        return None
    return "HF_HUB_OFFLINE" if os.environ.get("HF_HUB_OFFLINE") else "TRANSFORMERS_OFFLINE"


def reason(error: Exception) -> str:
    """Why a repository did not give its files, in a few words."""
    from huggingface_hub.errors import GatedRepoError, LocalEntryNotFoundError, RepositoryNotFoundError

    if isinstance(error, LocalEntryNotFoundError):
        if hasattr(error, "snapshot_path"):
            return "it is there in part"
        if offline_variable() is not None:
            return "it is not there"
        cause = error.__cause__
        return (
            f"the hub cannot be reached ({type(cause).__name__}: {_line(cause)})" if cause else _line(error)
        )
    if isinstance(error, GatedRepoError):
        return "its page on the hub asks for consent: agree there, and log in with `hf auth login`"
    if isinstance(error, RepositoryNotFoundError):
        return "the hub has no such repository, or shows it to others alone"
    return _line(error)


def _line(error: BaseException) -> str:
    return (next(iter(str(error).strip().splitlines()), "") or type(error).__name__)[:120]


def lacking_in_cache(model: KnownModel) -> list[str] | None:
    """What a model lacks in the hub's cache, of the repository of which the most is there; []: nothing, it is whole.

    None: nothing of it is there.
    """
    found = [lacks for repo in model.repos if (lacks := lacking_of(model, repo)) is not None]
    return min(found, key=len, default=None)


def lacking_of(model: KnownModel, repo: str) -> list[str] | None:
    """The same of one of its repositories."""
    place = _place(repo)
    newest = place / "refs" / "main"
    commit = pinned(repo) or (newest.read_text(encoding="utf-8").strip() if newest.is_file() else "")
    folder = place / "snapshots" / commit
    if not commit or not any(path.is_file() for path in folder.rglob("*")):
        begun = any((place / "blobs").glob("*.incomplete"))
        return ["all of its files but the beginning of one"] if begun else None
    if model.files:
        return [name for name in model.files if not (folder / name).is_file()]
    if model.kind == "reward":
        return _lacking_weights(folder, "")
    index = folder / "model_index.json"
    if not index.is_file():
        return [index.name]
    return [name for part in _parts(index) for name in _lacking_of_part(folder, part)]


PARTS = ("unet", "vae", "text_encoder", "tokenizer", "scheduler")
"""Folders of a prior whose `model_index.json` names none."""


def _parts(index: Path) -> Sequence[str]:
    try:
        said = json.loads(index.read_text(encoding="utf-8"))
    except ValueError:
        return PARTS
    unused = ("safety_checker", "feature_extractor", "image_encoder")
    named = [name for name, part in said.items() if isinstance(part, list) and part[0] and name not in unused]
    return named or PARTS


def _lacking_of_part(folder: Path, part: str) -> list[str]:
    if part == "scheduler":
        return [] if (folder / part / "scheduler_config.json").is_file() else [part]
    if part.startswith("tokenizer"):
        return [] if any((folder / part / name).is_file() for name in VOCABULARIES) else [part]
    return _lacking_weights(folder, part)


VOCABULARIES = ("tokenizer.json", "vocab.json", "vocab.txt", "spiece.model", "tokenizer.model")
"""Files of which one holds a tokenizer's words."""


def _lacking_weights(folder: Path, part: str) -> list[str]:
    """Of a model in a folder or one below: its configuration, its weights, or the files that its weights are split
    into."""
    own, before = folder / part, f"{part}/" if part else ""
    lacks = [] if (own / "config.json").is_file() else [f"{before}config.json"]
    for index in own.glob("*.safetensors.index.json"):
        try:
            files = sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
        except (ValueError, KeyError):
            return [*lacks, before + index.name]
        return [*lacks, *(before + name for name in files if not (own / name).is_file())]
    there = any(path.is_file() for path in own.glob("*.safetensors"))
    return lacks if there else [*lacks, f"{before}*.safetensors"]
