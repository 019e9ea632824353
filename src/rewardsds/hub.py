"""Files of models on the Hugging Face hub, at the commits that the catalogue pins."""

from __future__ import annotations

from collections.abc import Sequence
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
        # Where the hub gives nothing, a folder would be taken as whole, whatever it holds.
        if folder is not None:
            model_info(repo, revision=revision)
        found = snapshot_download(
            repo,
            revision=revision,
            local_dir=folder,
            allow_patterns=list(files),
            ignore_patterns=list(SKIPPED),
        )
    except failed_transfer() as error:
        if isinstance(error, OSError):
            raise
        raise OSError(f"the transfer failed with {type(error).__name__}: {error}") from error
    return Path(found)


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
