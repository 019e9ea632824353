"""What every reward is."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from typing import Literal, Protocol

import torch
from torch import Tensor

from rewardsds.memory import Chunks, is_out_of_memory
from rewardsds.prompts import Texts


class Reward(Protocol):
    """Scores previews against prompts, all candidates and items in one batch, on their device.

    An attribute `needs_views_together` that is true says that it scores no view by itself, see `rewards.views.score`.
    """

    def __call__(self, images: Tensor, prompts: Sequence[str]) -> Tensor:
        """images (N, B, V, 3, H, W) in [0, 1], B prompts → rewards (N, B), higher is better.

        The views of one item share one score (their mean unless the reward says otherwise).
        """
        ...


class ModelReward(ABC):
    """A reward that is a model on a device, which looks at pictures in slices."""

    def __init__(self) -> None:
        self.in_chunks(None)

    def in_chunks(self, size: int | Literal["auto"] | None) -> None:
        """At most so many pictures in a call of the model, also while it is asked for a gradient; see `Chunks`."""
        self.chunks = Chunks(size, recompute=True)

    @abstractmethod
    def __call__(self, images: Tensor, prompts: Sequence[str]) -> Tensor:
        """As in `Reward`."""

    @abstractmethod
    def to(self, device: torch.device | str) -> None:
        """Moves all of it. Pictures are scored where the model is, and scores come back to where the pictures are."""


class RewardError(ValueError):
    """A reward that failed, or answered what is no score; the message names it."""


class UnreachableError(RewardError):
    """A reward whose model is not there or cannot be reached, so that it will hardly answer anything else."""


def is_unreachable(error: BaseException | None) -> bool:
    """Whether an error, or one that it comes from, says that a model is not there or cannot be reached."""
    kinds: tuple[type[Exception], ...] = (ImportError, OSError, UnreachableError)
    with suppress(ImportError):  # for functions of the user's own that ask an endpoint
        import openai

        refused = openai.AuthenticationError, openai.PermissionDeniedError, openai.NotFoundError
        kinds += openai.APIConnectionError, *refused
    while error is not None and not isinstance(error, kinds):
        # no waiting helps, as it does where it is asked too fast
        if getattr(error, "code", None) == "insufficient_quota":
            return True
        error = error.__cause__
    return error is not None


_left_out: ContextVar[list[str] | None] = ContextVar("_left_out", default=None)


@contextmanager
def noting_left_out() -> Iterator[list[str]]:
    """The names of the rewards that sums and minima go on without inside the block, each once."""
    names: list[str] = []
    token = _left_out.set(names)
    try:
        yield names
    finally:
        _left_out.reset(token)


def note_left_out(name: str) -> None:
    names = _left_out.get()
    if names is not None and name not in names:
        names.append(name)


def name_of(reward: object) -> str:
    return getattr(reward, "__name__", type(reward).__name__)


def scores_of(reward: Reward, images: Tensor, prompts: Texts) -> Tensor:
    """What a reward says of previews (N, B, V, 3, H, W): finite (N, B), float32, beside them, with its gradient.

    Raises RewardError, which names the reward, where it fails or answers anything else; memory that is full is no
    failure of the reward, and its error passes.
    """
    name = name_of(reward)
    # a function of the user's own may change its pictures in place: others see them too
    given = images if isinstance(reward, ModelReward) else images.clone()
    try:
        scores: object = reward(given, prompts)  # pyright: ignore[reportArgumentType]
    except (Exception, SystemExit) as error:
        if isinstance(error, RewardError) or is_out_of_memory(error):
            raise
        reason = " ".join(str(error).split())
        raise RewardError(
            f"the reward {name} failed with {type(error).__name__}{f': {reason}' if reason else ''}"
        ) from error
    expected = tuple(images.shape[:2])
    if not isinstance(scores, Tensor):
        raise RewardError(
            f"the reward {name} returned {type(scores).__name__}: it must return a tensor of shape "
            f"(candidates, items) = {expected}"
        )
    if tuple(scores.shape) != expected:
        raise RewardError(
            f"the reward {name} returned shape {tuple(scores.shape)}: it must give one score for every "
            f"candidate of every item, (candidates, items) = {expected}"
        )
    if scores.layout != torch.strided or scores.is_meta or scores.is_complex():
        kind = "meta" if scores.is_meta else str(scores.dtype if scores.is_complex() else scores.layout)
        raise RewardError(
            f"the reward {name} returned a tensor that is {kind}: scores are plain real numbers"
        )
    scores = scores.to(device=images.device, dtype=torch.float32)
    if not scores.isfinite().all():
        bad = int((~scores.isfinite()).sum())
        raise RewardError(
            f"the reward {name} returned NaN or infinity for {bad} of {scores.numel()} previews: "
            "rewards must be finite"
        )
    return scores


def in_own_units(reward: Reward) -> Reward:
    """The same reward with what it is made of in the units that each has, not standardised over candidates, where it is
    made of others and says so by a method `in_own_units`.

    That is what has a gradient of use: the sum over candidates of what is standardised never moves.
    """
    method = getattr(reward, "in_own_units", None)
    return reward if method is None else method()


def standardised(scores: Tensor) -> Tensor:
    """(N, B) with mean 0 and deviation 1 over the candidates of each item; 0 where all are equal, but for float32's
    rounding."""
    deviation, mean = torch.std_mean(scores, dim=0, correction=0, keepdim=True)
    return (scores - mean) / torch.where(deviation > 5e-7 * (1 + mean.abs()), deviation, torch.inf)
