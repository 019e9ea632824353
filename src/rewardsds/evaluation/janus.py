"""The Janus problem: does an object show a second front from behind? Told on the toybox by its judge of views."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import torch
from torch import Tensor

from rewardsds.scenes.export import turntable_cameras
from rewardsds.scenes.object3d import Object3D
from rewardsds.toybox.view_judge import ViewJudge

VISIBLE_ALPHA = 0.5  # what no pixel covers more is no object


@dataclass(frozen=True)
class Janus:
    """fronts: quarters of the turntable, in arcs, in which the front is the likeliest side; a whole toy has one, a lump
    may have none.
    back_as_front: probability of a front in the view opposite the clearest front, 0 to 1; a whole toy has about 0."""

    fronts: int
    back_as_front: float


def measure_janus(
    one: Object3D, judge: ViewJudge, views: int = 24, size: int = 64, elevation: float = 15.0
) -> Janus:
    """Asks the judge all around an object; `views` must be even.

    Raises ValueError for an object of which it cannot be told: one that is empty or not finite, or shows no front from
    anywhere. Having no second front is no merit of theirs.
    """
    cameras = turntable_cameras(views, elevation).to(one.device)
    images, covered = [], 0.0
    with torch.no_grad():
        for index in range(views):
            rendering = one.render(cameras[:, index : index + 1], size=size)
            assert rendering.images is not None
            assert rendering.alpha is not None
            images.append(rendering.images[0, 0])
            covered = max(covered, float(rendering.alpha.max()))
    pictures = torch.stack(images)
    if not bool(pictures.isfinite().all()):
        raise ValueError("the object is not finite")
    if not covered > VISIBLE_ALPHA:
        raise ValueError("the object is empty or transparent: it has no sides")
    found = from_sides(judge.probabilities(pictures.clamp(0, 1)))
    if found.fronts == 0:
        raise ValueError(
            "the object shows no front from anywhere: whether it has a second one cannot be told"
        )
    return found


def from_sides(sides: Tensor) -> Janus:
    """From the probabilities (V, 4) of front, left, back and right in V views evenly around, V even.

    Each view is averaged with its two neighbours first: a single odd view is no second face.
    """
    if len(sides) < 4 or len(sides) % 2:
        raise ValueError(
            f"an even number of views around the object is needed, at least four; got {len(sides)}"
        )
    smooth = (sides.roll(1, 0) + sides + sides.roll(-1, 0)) / 3
    fronts = sum(max(1, round(4 * arc / len(sides))) for arc in _arcs((smooth.argmax(-1) == 0).tolist()))
    clearest = int(torch.argmax(smooth[:, 0]))
    opposite = (clearest + len(sides) // 2) % len(sides)
    return Janus(fronts, float(smooth[opposite, 0]))


def _arcs(wanted: list[bool]) -> list[int]:
    """Lengths of the runs of true around a circle."""
    if all(wanted):
        return [len(wanted)]
    gap = wanted.index(False)  # begin in a gap, so that no run is cut in two
    runs = itertools.groupby(wanted[gap:] + wanted[:gap])
    return [len(list(run)) for value, run in runs if value]
