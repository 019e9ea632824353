"""Finding and loading pretrained models: in the package, in a folder, or on the Hugging Face hub."""

from __future__ import annotations

import json
import logging
import os
import re
import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from importlib import resources
from os import PathLike
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors import SafetensorError, safe_open

from rewardsds.catalogue import find
from rewardsds.errors import some_of
from rewardsds.foreign import require_floats
from rewardsds.hub import (
    BESIDE_WEIGHTS,
    VOCABULARIES,
    cache_folder,
    failed_transfer,
    lacking_in_cache,
    lacking_of,
    located,
    offline_variable,
    repositories,
    snapshot,
)
from rewardsds.hub import reason as hubs_reason

Model = TypeVar("Model")


def embedded_weights(name: str) -> Path:
    """The folder of one of the toybox's models; it need not exist.

    It is inside the package, or in the folder of weights that REWARDSDS_TOYBOX names (training writes one).
    """
    own = os.environ.get("REWARDSDS_TOYBOX")
    weights = Path(own).expanduser() if own else Path(str(resources.files("rewardsds.toybox"))) / "weights"
    return weights / name


def installed_weights(name: str, file: str, what: str, instead: str) -> Path:
    """`embedded_weights(name)` where it holds `file`; a ValueError that says what can be done where it does not."""
    folder = embedded_weights(name)
    if not (folder / file).exists():
        raise ValueError(
            f"the toybox's {what} is not installed (looked in {folder}): train it with `rewardsds toybox train` and "
            f"set REWARDSDS_TOYBOX to the folder of weights, or give {instead}"
        )
    return folder


def default_device_and_dtype(
    device: torch.device | str | None, dtype: torch.dtype | None
) -> tuple[torch.device, torch.dtype]:
    """Where they are not given: CUDA if it is available; float32 on the CPU and float16 elsewhere."""
    device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    return device, dtype or (torch.float32 if device.type == "cpu" else torch.float16)


def load_tokenizer(companion: str | PathLike[str], subfolder: str = "") -> Any:
    """Of a model's folder or hub id, of a known model's with all of its mirrors; `subfolder` is looked into where there
    is one.

    Raises ValueError in one line, which names all that were asked.
    """
    folder = Path(companion).expanduser()
    if folder.is_dir():
        with quiet_loading():
            return read_tokenizer(folder, subfolder if (folder / subfolder).is_dir() else "")
    failures: list[str] = []
    for name in repositories(str(companion)):
        try:
            source = located(name, BESIDE_WEIGHTS)
            inner = subfolder if not isinstance(source, Path) or (source / subfolder).is_dir() else ""
            with quiet_loading():
                return read_tokenizer(source, inner)
        except TokenizerError as error:
            failures.append(f"{name}: {error}")
        except (OSError, ValueError, failed_transfer()) as error:
            failures.append(f"{name}: {hubs_reason(error)}")
    where = f"the hub's cache, {cache_folder()}"
    variable = offline_variable()
    if variable is None:
        asked, fetch = f"the Hugging Face hub and {where} were asked", "fetch it with a network"
    else:
        asked = f"{variable} is set, so only {where}, was asked"
        fetch = f"fetch it with a network and without {variable}"
    raise ValueError(
        f"the tokenizer of {companion} cannot be loaded ({asked}: {'; '.join(failures)}): {fetch}, or convert the "
        "checkpoint with `rewardsds models convert … --companion FOLDER` and a folder that has it"
    )


class TokenizerError(ValueError):
    """Files that are there, and of which no tokenizer can be made."""


def read_tokenizer(source: str | PathLike[str], subfolder: str = "") -> Any:
    """What AutoTokenizer makes of a folder or hub id, where it has a vocabulary.

    Raises TokenizerError in one line, OSError where a hub does not give the files, JSONDecodeError for damaged ones.
    """
    from transformers import AutoTokenizer

    folder = Path(source).expanduser()
    place = str(folder.absolute() / subfolder) if folder.is_dir() else f"{source}/{subfolder}".rstrip("/")
    try:
        if not folder.is_dir():
            # By an id transformers asks for a config.json beside it, which no repository of a prior has and which is so
            # never in the cache: without a network all that it needs would be there in vain.
            folder = snapshot(str(source), [f"{subfolder}/{name}".lstrip("/") for name in BESIDE_WEIGHTS])
        tokenizer = AutoTokenizer.from_pretrained(str(folder), subfolder=subfolder, trust_remote_code=False)
    except (json.JSONDecodeError, failed_transfer()):
        raise
    except Exception as error:  # of any kind, by which of its files is missing or damaged
        if folder.is_dir() and not any((folder / subfolder / name).is_file() for name in VOCABULARIES):
            raise TokenizerError(_without_vocabulary(place)) from error
        if isinstance(error, OSError):
            raise
        reason = _reason(error)[:160]
        raise TokenizerError(f"the tokenizer in {place} cannot be read: {reason}") from error
    require_vocabulary(tokenizer, place)
    return tokenizer


def require_vocabulary(tokenizer: Any, place: str) -> None:
    """Raises TokenizerError for a tokenizer that knows special tokens alone: transformers makes one of a configuration
    without its vocabulary, and it reads all prompts alike. place: for the message."""
    special = {*tokenizer.all_special_tokens, *tokenizer.get_added_vocab()}
    # "▁" is the space that T5's has without a vocabulary
    if not any(token not in special and token != "▁" for token in tokenizer.get_vocab()):
        raise TokenizerError(_without_vocabulary(place))


def _without_vocabulary(place: str) -> str:
    return (
        f"{place} holds no tokenizer: its vocabulary is missing (tokenizer.json; vocab.json and merges.txt; vocab.txt; "
        "or spiece.model, by the model); put the tokenizer's files there from where the model is published"
    )


def load_part(kind: Any, source: str | PathLike[str], subfolder: str = "", **options: Any) -> Any:
    """`kind.from_pretrained` of diffusers or transformers, in which every weight finds its place and none is made up.

    Only safetensors are read, of a variant such as fp16 where there is no other: no pickle. Raises ValueError that says
    what a folder holds in their place, or names weights that are missing or too many, or see
    `require_floats`.
    """
    where = {"subfolder": subfolder} if subfolder else {}
    where |= _variant(Path(source).expanduser() / subfolder)
    model, told = kind.from_pretrained(
        str(source), use_safetensors=True, output_loading_info=True, **where, **options
    )
    missing = sorted(told["missing_keys"])
    more = sorted(name for name in told["unexpected_keys"] if not _BESIDES.search(name))
    other = sorted(str(one[0]) for one in told.get("mismatched_keys") or ())
    place = f"{source}/{subfolder}" if subfolder else str(source)
    problems = [
        f"{what} {some_of(names)}"
        for what, names in (("it lacks", missing), ("it has, besides,", more), ("other shapes has", other))
        if names
    ]
    if problems:
        raise ValueError(f"{place} holds no {kind.__name__}: {'; '.join(problems)}")
    require_floats(_kinds(source, subfolder), place)
    return model


def _variant(folder: Path) -> dict[str, str]:
    """The option that says which weights of a part's folder are read, where it holds those of a variant alone.

    Raises ValueError where it holds no safetensors, or several variants.
    """
    if not folder.is_dir():
        return {}
    files = sorted(path.name for path in folder.iterdir() if path.is_file())
    weights = {name: found for name in files if (found := _WEIGHTS.fullmatch(name))}
    variants = sorted({found["variant"] or "" for found in weights.values()})
    if "" in variants:
        return {}
    if len(variants) == 1:
        return {"variant": variants[0]}
    place = folder.absolute()
    if variants:
        raise ValueError(
            f"{place} holds the variants {', '.join(variants)} of its weights, and none without a name: rename one of "
            f"them, {next(iter(weights))} to {_without_variant(next(iter(weights)))}"
        )
    pickles = [name for name in files if name.endswith((".bin", ".pt", ".pth", ".ckpt"))]
    if pickles:
        raise ValueError(
            f"{place} holds {some_of(pickles)}, a pickle, which is not read here, and no .safetensors: get those from "
            "where the model is published, or, where you trust the file, load the model with its library and write it "
            "with save_pretrained(FOLDER)"
        )
    held = some_of(files) if files else "nothing"
    raise ValueError(
        f"{place} holds {held}, expected config.json and weights as .safetensors: get the model again"
    )


_WEIGHTS = re.compile(
    r"(diffusion_pytorch_model|model)(-\d+-of-\d+)?(\.(?P<variant>[\w-]+?))?(-\d+-of-\d+)?\.safetensors"
)
"""As diffusers and transformers call them, which write the number of a file and its variant in either order."""


def _without_variant(name: str) -> str:
    found = _WEIGHTS.fullmatch(name)
    assert found is not None
    return name.replace(f".{found['variant']}", "", 1)


def _kinds(source: str | PathLike[str], subfolder: str) -> dict[str, str]:
    """Of the numbers of a part that was loaded, by the names of its weights, as safetensors call them."""
    from transformers.utils.hub import cached_file

    folder = Path(str(cached_file(str(source), "config.json", subfolder=subfolder))).parent
    kinds = {}
    for file in folder.glob("*.safetensors"):
        with safe_open(file, "pt") as weights:
            kinds |= {name: weights.get_slice(name).get_dtype() for name in weights.keys()}  # noqa: SIM118
    return kinds


_BESIDES = re.compile(r"position_ids|^vision_model\.|^visual_projection\.|^text_projection\.|^logit_scale$")
"""Weights that files of text encoders hold and that are not used."""


def load_from(
    source: str | PathLike[str], what: str, examples: str, load: Callable[[str | Path], Model]
) -> Model:
    """Call `load` with a folder or file; or, of a text, with a hub id if there is none, a known model's with all of its
    mirrors.

    what: the kind of model, for messages ("prior"). examples: what else could have been given.

    Raises ValueError in one line: where was looked and what can be done, or why the files could not be read.
    """
    from huggingface_hub.errors import StrictDataclassError

    unreadable = (OSError, SafetensorError, RuntimeError, json.JSONDecodeError, UnicodeDecodeError)
    misread = (KeyError, IndexError, TypeError, AttributeError, StrictDataclassError)  # configurations
    problems = (*unreadable, *misread)
    folder = Path(source).expanduser()
    if folder.exists():
        try:
            return load(folder)
        except problems as error:
            reason = _damaged_json(folder) or _reason(error)
            raise ValueError(f"the {what} in {folder.absolute()} cannot be read: {reason}") from error
    model = find(source) if isinstance(source, str) else None
    if model is not None and model.kind != what:
        raise ValueError(
            f"{source} is a {model.kind}, not a {what}: give it to --{model.kind}, or to load_{model.kind}"
        )
    if model is not None and model.recipe is not None:
        raise ValueError(
            f"{model.name} comes as its authors' file: get it with `rewardsds models fetch {model.name}`, convert it "
            f"with `rewardsds models convert {model.recipe} FILE FOLDER`, and give that folder, or the file itself"
        )
    ids = [str(source)] if model is None or model.name != source else list(model.repos)
    is_id = isinstance(source, str) and re.fullmatch(r"[A-Za-z0-9][\w.-]*/[\w.-]+", source)
    if model is None and not is_id:
        raise ValueError(f"no {what} at {folder.absolute()}: give {examples}")
    failures: list[str] = []
    for name in ids:
        place: str | Path = name
        try:
            place = located(name)
            return load(place)
        except (*problems, failed_transfer()) as error:
            damaged = _damaged_json(Path(place)) if place != name else None
            from_hub = isinstance(error, (OSError, failed_transfer()))
            failures.append(f"{name}: {damaged or (hubs_reason if from_hub else _reason)(error)}")
        except ValueError as error:
            if model is None or not lacking_of(model, name):
                raise
            failures.append(str(error) if str(error).startswith(name) else f"{name}: {error}")
    raise ValueError(_not_given(str(source), what, ids, failures))


def _not_given(source: str, what: str, asked: list[str], failures: list[str]) -> str:
    """What to say of ids that gave no model, with what can be done about it."""
    model, variable, cache = find(source), offline_variable(), cache_folder()
    told = f"no {what} {source!r}: there is no folder {Path(source).expanduser().absolute()}, "
    if variable is None:
        told += f"and neither the Hugging Face hub nor its cache ({cache}) gave it ({'; '.join(failures)})"
    else:
        told += (
            f"and {variable} is set, so that only the hub's cache was asked ({cache}), which did not give it "
            f"({'; '.join(failures)})"
        )
    before = "" if variable is None else f"unset {variable} and "
    if model is None:
        return f"{told}; {before or 'with a network '}try again, or give a folder of it"
    get = "get it"
    if lacks := lacking_in_cache(model):
        told += f"; it is there in part and lacks {some_of(lacks)}"
        get = "complete it"
    mirrors = [repo for repo in model.repos if repo not in asked]
    also = f", which also asks {', '.join(mirrors)}" if mirrors else ""
    return f"{told}; {before}{get} with `rewardsds models fetch {model.name}`{also}"


def _reason(error: Exception) -> str:
    if "trust_remote_code" in str(error):
        return "it needs code of its own, which is never run here: give a model of transformers' own kinds"
    if isinstance(error, KeyError):
        return f"it does not say {error}"
    if isinstance(error, (IndexError, TypeError, AttributeError)):
        reason = " ".join(str(error).split())[:160]
        return f"its configuration is damaged ({type(error).__name__}: {reason})"
    return next(iter(str(error).strip().splitlines()), type(error).__name__)


def _damaged_json(folder: Path) -> str | None:
    """Which of a folder's JSON files is none, since libraries do not say whose text they could not read."""
    for file in sorted(folder.rglob("*.json")):
        try:
            json.loads(file.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            return f"{file.relative_to(folder)} is damaged or was downloaded in part ({error}); get it again"
    return None


@contextmanager
def quiet_loading() -> Iterator[None]:
    """Without progress bars, and without warnings that every AutoencoderTiny provokes, or of how libraries call the
    hub's."""
    from diffusers.utils import logging as diffusers_logging
    from transformers.utils import logging as transformers_logging

    had_bars = transformers_logging.is_progress_bar_enabled()
    transformers_logging.disable_progress_bar()
    diffusers_logging.disable_progress_bar()
    diffusers_logger = logging.getLogger("diffusers.configuration_utils")

    def keep(record: logging.LogRecord) -> bool:
        return "passed to AutoencoderTiny" not in record.getMessage()

    diffusers_logger.addFilter(keep)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*local_dir_use_symlinks")
            yield
    finally:
        diffusers_logger.removeFilter(keep)
        if had_bars:
            transformers_logging.enable_progress_bar()
            diffusers_logging.enable_progress_bar()


def quiet_imports() -> AbstractContextManager[None]:
    """Without transformers' warnings about processors of pictures that are not used here."""
    from transformers.utils import logging as transformers_logging

    return errors_alone(transformers_logging)


@contextmanager
def errors_alone(library: Any) -> Iterator[None]:
    """Of what transformers or diffusers log; library: its `utils.logging`."""
    verbosity = library.get_verbosity()
    library.set_verbosity_error()
    try:
        yield
    finally:
        library.set_verbosity(verbosity)
