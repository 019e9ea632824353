"""Checkpoints as other projects write them: read as tensors, never as code."""

from __future__ import annotations

import pickle
import re
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from os import PathLike
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from rewardsds.catalogue import Recipe
from rewardsds.errors import some_of

SUFFIXES = (".safetensors", ".pt", ".pth", ".ckpt", ".bin")
FLOATS = {"float16", "bfloat16", "float32", "float64", "F16", "BF16", "F32", "F64"}
"""What weights are kept in, by torch's names and by safetensors'."""
LFS_POINTER = b"version https://git-lfs.github.com/"
WRAPPERS = ("state_dict", "model_state_dict", "model", "module")


def read_checkpoint(path: str | PathLike[str]) -> dict[str, Tensor]:
    """The tensors of a `.safetensors`, `.pt`, `.pth`, `.ckpt` or `.bin` file, by their original names.

    A state dict inside of another mapping is found, and the prefix that DistributedDataParallel adds is taken off.
    Pickles are read with `weights_only`: what else they hold is never run.

    Raises ValueError in one line for a file that is missing, of another kind, damaged, or that needs code to be read.
    """
    file = Path(path).expanduser()
    if not file.is_file():
        raise ValueError(f"no checkpoint at {file.absolute()}: give a file ({', '.join(SUFFIXES)})")
    if file.suffix not in SUFFIXES:
        raise ValueError(f"{file.absolute()} is no checkpoint: expected one of {', '.join(SUFFIXES)}")
    if _is_program(file):
        raise ValueError(
            f"{file.absolute()} is a TorchScript program, which was not run: get the model's weights as .safetensors "
            "or as a plain state dict (of OpenAI's CLIP the folder, with `rewardsds models fetch clip-l`)"
        )
    try:
        read: Any = (
            load_file(file)
            if file.suffix == ".safetensors"
            else torch.load(file, map_location="cpu", weights_only=True)
        )
    except (pickle.UnpicklingError, SafetensorError, RuntimeError, EOFError, OSError, ValueError) as error:
        named = re.search(r"GLOBAL ([\w.]+)", str(error))
        if isinstance(error, pickle.UnpicklingError) and (named or zipfile.is_zipfile(file)):
            wants = f" ({named[1]})" if named else ""
            raise ValueError(
                f"{file.absolute()} was not read: it holds Python objects besides tensors{wants}, and reading those "
                "would run code; get the weights as .safetensors or as a plain state dict"
            ) from error
        raise ValueError(f"{file.absolute()} ({file.stat().st_size} bytes) {_damage(file, error)}") from error
    state = _state_dict(read)
    if not state:
        raise ValueError(f"{file.absolute()} holds no tensors: a {type(read).__name__}")
    # A number by itself counts something, as the updates of an average.
    kinds = {name: str(value.dtype).removeprefix("torch.") for name, value in state.items() if value.ndim}
    require_floats(kinds, str(file.absolute()))
    if all(name.startswith("module.") for name in state):
        state = {name.removeprefix("module."): value for name, value in state.items()}
    return state


def _is_program(file: Path) -> bool:
    """Whether torch.jit.save wrote it, whose archives hold code besides tensors."""
    if not zipfile.is_zipfile(file):
        return False
    try:
        with zipfile.ZipFile(file) as archive:
            return any(name.endswith("/constants.pkl") for name in archive.namelist())
    except (zipfile.BadZipFile, OSError):
        return False


LEFTOVERS = re.compile(
    r"model_ema\.|optimizer\w*\."
    r"|(betas|alphas_cumprod\w*|sqrt_\w+|posterior_\w+|log_one_minus_\w+|lvlb_weights|logvar|scale_factor)$"
    r"|denoiser\.sigmas$|first_stage_model\.(loss|model_ema)\."
    r"|cond_stage_model\.(logit_scale$|model\.(visual\.|(logit_scale|attn_mask|text_projection)$))"
    r"|cond_stage_model\.transformer\.text_projection\b.*"
    r"|conditioner\.embedders\.1\.model\.(visual\.|(logit_scale|attn_mask)$)"
    r"|blip\.(vision|text)_proj\.|attn_mask$|.*\bposition_ids$"
)
"""Names that files hold from their training and that nothing here reads: averages of the weights, the state of an
optimiser, tables of the noise schedule, losses, the other tower of a CLIP, its masks and positions, heads of
pretraining."""


def without_leftovers(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: value for name, value in state.items() if not LEFTOVERS.match(name)}


def leftovers(state: Mapping[str, Tensor]) -> list[str]:
    """The names of those, of many with the same beginning `beginning.*`."""
    found = (match[0] for name in state if (match := LEFTOVERS.match(name)))
    return list(dict.fromkeys(f"{name}*" if name.endswith(".") else name for name in found))


def require_known(state: Mapping[str, Tensor], prefixes: Sequence[str], what: str) -> None:
    """Raises ValueError for names that neither begin so nor are `LEFTOVERS`, which nothing would read."""
    more = sorted(name for name in without_leftovers(state) if not name.startswith(tuple(prefixes)))
    if more:
        raise ValueError(
            f"this is no checkpoint of {what} alone: it has {some_of(more)} besides, which would not be used; "
            "get it without them"
        )


def require_floats(kinds: Mapping[str, str], place: str) -> None:
    """Raises ValueError where weights are kept as whole or complex numbers, which loaders would take for the weights.

    kinds: of numbers, by the names of the weights, as torch or safetensors call them. Positions, indices and masks may
    be anything. place: for the message.
    """
    other = sorted(
        {kind for name, kind in kinds.items() if kind not in FLOATS and not _NUMBERED.search(name)}
    )
    if other:
        small = any(_QUANTISED.match(kind) for kind in other)
        raise ValueError(
            f"{place} holds {', '.join(other)} weights{', which are quantised' if small else ''}: get it in float16, "
            "bfloat16 or float32"
        )


_NUMBERED = re.compile(r"(_ids|_index|_?mask)$")
"""Ends of names whose tensors are no weights."""
_QUANTISED = re.compile(r"q?u?int[48]$|float[468]_|[IUF][468](_|$)")
"""Kinds of eight bits and less."""


def _damage(file: Path, error: Exception) -> str:
    with file.open("rb") as opened:
        if opened.read(len(LFS_POINTER)) == LFS_POINTER:
            return "is a pointer of Git LFS, not the file that it stands for: get that with `git lfs pull`"
    reason = " ".join(str(error).split())[:120] or type(error).__name__
    if isinstance(error, pickle.UnpicklingError):  # whose text is torch's advice to run code
        reason = "it is no checkpoint as torch writes it"
    return f"is damaged or was downloaded in part: {reason}; get it again"


def recipe_of(state: Mapping[str, Tensor]) -> Recipe | None:
    """Which published checkpoint the names of the weights belong to."""

    def has(*prefixes: str) -> bool:
        return all(any(name.startswith(prefix) for name in state) for prefix in prefixes)

    if has("model.diffusion_model.camera_embed."):
        return "mvdream"
    if has("model.diffusion_model.", "first_stage_model."):
        return "stable-diffusion"
    if has("blip.visual_encoder.", "mlp.layers."):
        return "reward3d" if has("Scorer.") or has("cross_view_adapter.") else "image-reward"
    if has("visual.conv1.", "token_embedding."):
        return "hps"
    if set(state) == {"weight", "bias"} or (state and all(name.startswith("layers.") for name in state)):
        return "aesthetic"
    return None


def _state_dict(read: Any) -> dict[str, Tensor]:
    if not isinstance(read, Mapping):
        return {}
    for wrapper in WRAPPERS:
        if isinstance(read.get(wrapper), Mapping):
            return _state_dict(read[wrapper])
    return {str(name): value for name, value in read.items() if isinstance(value, Tensor)}


def split_off(state: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """The part of a state dict whose names begin so, without the prefix."""
    return {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}


def renamed(state: Mapping[str, Tensor], rules: Mapping[str, str]) -> dict[str, Tensor]:
    """With every rule's regular expression replaced in every name, in order."""
    result = {}
    for name, value in state.items():
        for pattern, replacement in rules.items():
            name = re.sub(pattern, replacement, name)
        result[name] = value
    return result


def count(state: Mapping[str, Tensor], pattern: str) -> int:
    """How many numbers follow a pattern in the names: the layers of a tower, 12 where there is blocks.0 … blocks.11."""
    found = numbers_in(state, pattern)
    if found != list(range(len(found))):
        raise ValueError(f"layers are missing: of {pattern}N there are {found}")
    return len(found)


def numbers_in(state: Mapping[str, Tensor], pattern: str) -> list[int]:
    """The numbers that follow a pattern in the names, in order."""
    return sorted({int(match[1]) for name in state if (match := re.match(pattern + r"(\d+)\.", name))})


def split_attention(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """open_clip's `…attn.in_proj_weight` of three parts → `…self_attn.q_proj.weight`, `k_proj`, `v_proj`."""
    result = {}
    for name, value in state.items():
        match = re.fullmatch(r"(.*\.attn)\.in_proj_(weight|bias)", name)
        if match is None:
            result[name] = value
            continue
        layer = match[1].removesuffix(".attn")
        for part, own in zip(("q_proj", "k_proj", "v_proj"), torch.chunk(value, 3)):
            result[f"{layer}.self_attn.{part}.{match[2]}"] = own
    return result


def shape_of(state: Mapping[str, Tensor], name: str, axes: int) -> tuple[int, ...]:
    """Of a weight. Raises KeyError where it is missing, ValueError where it has not so many axes, or nothing in it."""
    shape = tuple(state[name].shape)
    if len(shape) != axes or not all(shape):
        raise ValueError(
            f"{name} has shape {shape}: expected {axes} {'axes' if axes > 1 else 'axis'}, none empty"
        )
    return shape


@contextmanager
def reading(what: str) -> Iterator[None]:
    """Says of which checkpoint a weight is missing (KeyError) or wrong (ValueError)."""
    try:
        yield
    except KeyError as error:
        raise ValueError(f"this is no checkpoint of {what}: it lacks {error.args[0]}") from None
    except ValueError as error:
        raise ValueError(f"this is no checkpoint of {what}: {error}") from error


def load_strictly(module: torch.nn.Module, state: Mapping[str, Tensor], what: str) -> None:
    """Every tensor finds its place and every place its tensor, or a ValueError that names what does not."""
    own = module.state_dict()
    problems = [
        f"it lacks {some_of(missing)}" if (missing := sorted(own.keys() - state.keys())) else "",
        f"it has {some_of(more)} besides" if (more := sorted(state.keys() - own.keys())) else "",
    ]
    other = [
        f"{name} {tuple(state[name].shape)} instead of {tuple(own[name].shape)}"
        for name in own.keys() & state.keys()
        if own[name].shape != state[name].shape
    ]
    problems.append(f"other shapes: {some_of(sorted(other))}" if other else "")
    told = "; ".join(problem for problem in problems if problem)
    if told:
        raise ValueError(f"this is no checkpoint of {what}: {told}")
    module.load_state_dict(dict(state))
