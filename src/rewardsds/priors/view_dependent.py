"""View-dependent prompting, for priors that know no cameras: what is seen from where is said in words.

Without it such a prior puts a face on every side of an object (the Janus problem). Words after the prompt are
DreamFusion's (arXiv 2209.14988, section 3.2); blending them and pushing off the wrong ones is Perp-Neg
(arXiv 2304.04968).
"""

from __future__ import annotations

import math
import re
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from rewardsds.priors.base import Condition, Prediction, Prior
from rewardsds.prompts import OfViews, Texts

PERPENDICULAR = "perpendicular"


@dataclass(frozen=True)
class ViewWords:
    """What is put after a prompt, by where the camera stands. Angles in degrees.

    front_angle: the front is seen within so much to either side of it, and the back within so much of the back.
    overhead_elevation: from here on up it is seen from above.
    """

    front: str = ", front view"
    side: str = ", side view"
    back: str = ", back view"
    overhead: str = ", overhead view"
    front_angle: float = 45.0
    overhead_elevation: float = 60.0

    def of(self, azimuth: float, elevation: float) -> str:
        """azimuth, elevation: degrees; azimuth 0 is the front."""
        if elevation >= self.overhead_elevation:
            return self.overhead
        away = abs((azimuth + 180.0) % 360.0 - 180.0)
        if away <= self.front_angle:
            return self.front
        return self.back if away >= 180.0 - self.front_angle else self.side


@dataclass(frozen=True)
class PerpNeg:
    """How strongly the views that are not seen are pushed off (arXiv 2304.04968, section 4.2).

    Between front and side the prompt is blended by r, which falls from 1 at the front to 0 at the side, and what is
    pushed off weighs −weight · exp(−decay · r); likewise between side and back.
    """

    weight: float = 2.0
    front_decay: float = 2.0
    side_decay: float = 10.0

    def of(self, azimuth: float) -> tuple[tuple[float, float, float], tuple[float, float]]:
        """Shares of (front, side, back) in the prompt, and the weights of (front, side) that are pushed off."""
        away = abs((azimuth + 180.0) % 360.0 - 180.0)
        if away < 90.0:
            r = 1.0 - away / 90.0
            front = 0.0 if r > 0.8 else -self.weight * math.exp(-self.front_decay * r)
            side = 0.0 if r < 0.2 else -self.weight * math.exp(-self.side_decay * (1.0 - r))
            return (r, 1.0 - r, 0.0), (front, side)
        r = 1.0 - (away - 90.0) / 90.0
        side = 0.0 if r > 0.8 else -0.5 * self.weight * math.exp(-self.side_decay * r)
        return (0.0, r, 1.0 - r), (-self.weight, side)


class ViewDependentPrior:
    """A prior that is told in words from where each view is seen. Everything else is the prior's own.

    Prompts get words where they are one text for an item and there are cameras; texts that views have of their own, and
    empty ones, stay as they are. Rewards see the same words.
    """

    def __init__(self, prior: Prior, words: ViewWords | None = None, perp_neg: PerpNeg | None = None) -> None:
        """perp_neg: blend and push off; None: the words alone, as in DreamFusion."""
        self.prior = prior
        self.words = words or ViewWords()
        self.perp_neg = perp_neg
        self._texts: dict[tuple[str, str], str] = {}

    @property
    def latent_shape(self) -> tuple[int, int, int]:
        return self.prior.latent_shape

    @property
    def image_size(self) -> int:
        return self.prior.image_size

    @property
    def views(self) -> int:
        return self.prior.views

    @property
    def alphas_cumprod(self) -> Tensor:
        return self.prior.alphas_cumprod

    @property
    def network_evaluations(self) -> int:
        return self.prior.network_evaluations

    def encode(self, images: Tensor) -> Tensor:
        return self.prior.encode(images)

    def decode(self, latents: Tensor) -> Tensor:
        return self.prior.decode(latents)

    def unknown_words(self, prompt: str) -> list[str]:
        return self.prior.unknown_words(prompt)

    def condition(
        self,
        prompts: Texts,
        negative_prompt: str | Texts = "",
        camera_to_world: Tensor | None = None,
    ) -> Condition:
        if camera_to_world is None or not (any(prompts) and all(isinstance(text, str) for text in prompts)):
            return self.prior.condition(prompts, negative_prompt, camera_to_world)
        texts = [str(text) for text in prompts]
        places = _places(camera_to_world)
        words = [[self.words.of(*place) for place in item] for item in places]
        seen = [
            OfViews(text, [_with_words(text, one) for one in item])
            for text, item in zip(texts, words, strict=True)
        ]
        if self.perp_neg is None:
            told = [[self._told(text, one) for one in item] for text, item in zip(texts, words, strict=True)]
            return replace(self.prior.condition(told, negative_prompt, camera_to_world), prompts=seen)
        return self._blended(seen, texts, places, negative_prompt, camera_to_world)

    def _blended(
        self,
        seen: Sequence[Sequence[str]],
        texts: Sequence[str],
        places: Sequence[Sequence[tuple[float, float]]],
        negative_prompt: str | Texts,
        camera_to_world: Tensor,
    ) -> Condition:
        """Perp-Neg's condition: embeddings between those of the sides, and what is pushed off in `extras`."""
        assert self.perp_neg is not None
        views = camera_to_world.shape[1]

        def every_view(ending: str) -> Condition:
            said = [[self._told(text, ending)] * views for text in texts]
            return self.prior.condition(said, negative_prompt, camera_to_world)

        words = self.words
        sides = [every_view(ending) for ending in (words.front, words.side, words.back, words.overhead)]
        plans = [
            [
                ((0.0, 0.0, 0.0, 1.0), (0.0, 0.0))
                if elevation >= words.overhead_elevation
                else ((*shares, 0.0), pushed)
                for azimuth, elevation in item
                for shares, pushed in [self.perp_neg.of(azimuth)]
            ]
            for item in places
        ]
        shares = torch.tensor([[plan[0] for plan in item] for item in plans])  # B, V, 4
        pushed = torch.tensor([[plan[1] for plan in item] for item in plans])  # B, V, 2

        def blend(values: Sequence[Tensor]) -> Tensor:
            weights = shares.to(values[0]).movedim(-1, 0)
            return sum(
                (w.reshape(*w.shape, *(1,) * (v.ndim - 2)) * v for w, v in zip(weights, values)),
                start=torch.zeros_like(values[0]),
            )

        own = sides[0]
        extras: dict[str, Any] = dict(own.extras or {})
        if "pooled" in extras:
            extras["pooled"] = blend([side.extras["pooled"] for side in sides if side.extras is not None])
        extras[PERPENDICULAR] = [
            (side, pushed[..., index]) for index, side in enumerate(sides[:2]) if pushed[..., index].any()
        ]
        return replace(
            own, prompts=seen, embeddings=blend([side.embeddings for side in sides]), extras=extras
        )

    def _told(self, text: str, words: str) -> str:
        """A text with words after it, as the prior is told it: of one that is too long for them its end goes, which it
        would not see either, since the view is what must be read."""
        if (text, words) not in self._texts:
            self._texts[text, words] = self._with_room(text, words)
        return self._texts[text, words]

    def _with_room(self, text: str, words: str) -> str:
        whole = _with_words(text, words)
        reads_whole = getattr(self.prior, "reads_whole", None)
        if reads_whole is None or not text or reads_whole(whole):
            return whole
        ends = [match.end() for match in re.finditer(r"\S+", text)]
        fitting = [end for end in ends if reads_whole(text[:end] + words)]
        if not fitting:
            return whole
        kept = text[: fitting[-1]]
        if not any(known == text for known, _ in self._texts):
            warnings.warn(
                f"the prompt is too long for the prior to read {words.strip(' ,')!r} after it: the prior is not told "
                f"its end, {text[len(kept) :].strip()!r}",
                stacklevel=4,
            )
        return kept + words

    def predict(
        self, noisy: Tensor, timesteps: Tensor, condition: Condition, unconditional: bool = True
    ) -> Prediction:
        """With what is pushed off, one image more for each, and always the unconditional branch (Perp-Neg, eq. 11)."""
        pushed = (condition.extras or {}).get(PERPENDICULAR, [])
        prediction = self.prior.predict(noisy, timesteps, condition, unconditional or bool(pushed))
        if not pushed:
            return prediction
        assert prediction.unconditional is not None
        main = prediction.direction
        wanted = prediction.conditional
        for other, weights in pushed:
            away = self.prior.predict(noisy, timesteps, other, unconditional=False).conditional
            away = perpendicular(away - prediction.unconditional, main)
            wanted = wanted + weights.to(wanted)[:, :, None, None, None] * away
        return Prediction(wanted, prediction.unconditional if unconditional else None)


def perpendicular(values: Tensor, to: Tensor) -> Tensor:
    """What of (..., D, h, w) is orthogonal to another, for each of the leading axes by itself."""
    axes = (-3, -2, -1)
    share = (values * to).sum(axes, keepdim=True) / to.square().sum(axes, keepdim=True).clamp_min(1e-12)
    return values - share * to


def _with_words(text: str, words: str) -> str:
    """An empty text asks for nothing, from no side."""
    return text + words if text else text


def _places(camera_to_world: Tensor) -> list[list[tuple[float, float]]]:
    """(B, V, 4, 4) → for every view its azimuth and elevation in degrees, around the origin."""
    x, y, z = camera_to_world[..., :3, 3].double().cpu().unbind(-1)
    azimuth = torch.rad2deg(torch.atan2(y, x))
    elevation = torch.rad2deg(torch.atan2(z, torch.hypot(x, y)))
    return [list(zip(*pair, strict=True)) for pair in zip(azimuth.tolist(), elevation.tolist(), strict=True)]
