"""Exact edits on the toybox: one toy of a true picture recoloured or replaced, with the truth before and after."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from rewardsds.scenes.export import save_png
from rewardsds.toybox.captions import Split, benchmark_prompts, describe, embedded_kinds, parse
from rewardsds.toybox.show import look
from rewardsds.toybox.specification import COLOURS, SceneSpec
from rewardsds.toybox.world import build


@dataclass(frozen=True)
class ExactEdit:
    """before, after: (3, 64, 64) true pictures. mask: (64, 64), 1 on the edited toy in either of them, widened by the
    two pixels over which the autoencoder spreads an edge. changed: index of the edited group.
    """

    source: SceneSpec
    target: SceneSpec
    before: Tensor
    after: Tensor
    mask: Tensor
    changed: int


def make_edits(count: int, split: Split, kinds: Sequence[str]) -> list[ExactEdit]:
    """Edits towards the benchmark prompts of the split, from scenes with another toy in one place; always the same.

    Every second one recolours a toy, the others replace it.
    """
    edits = []
    for index, prompt in enumerate(benchmark_prompts(count, split=split, kinds=kinds)):
        target = parse(prompt).spec
        assert target is not None
        rng = np.random.default_rng((11, index))
        changed = int(rng.integers(2))
        group = target.groups[changed]
        taken = {one.kind for one in target.groups}
        if index % 2 == 0:
            other = replace(group, colour=str(rng.choice([c for c in COLOURS if c != group.colour])))
        else:
            other = replace(group, kind=str(rng.choice([kind for kind in kinds if kind not in taken])))
        groups = list(target.groups)
        groups[changed] = other
        source = replace(target, groups=tuple(groups))
        worlds = [build(spec, np.random.default_rng((12, index))) for spec in (source, target)]
        seen = look(worlds, (0.0,), 64)
        before, after = torch.from_numpy(seen.colour).permute(0, 3, 1, 2).float() / 255
        mask = torch.from_numpy((seen.toy == changed).any(axis=0)).float()
        mask = F.max_pool2d(mask[None, None], 5, stride=1, padding=2)[0, 0]
        edits.append(ExactEdit(source, target, before, after, mask, changed))
    return edits


def write_edits(count: int, folder: Path) -> list[tuple[Path, str, str]]:
    """(picture, source, target) of edits of the test split; a picture is known by what it shows, and written once."""
    found = []
    for index, edit in enumerate(make_edits(count, "test", embedded_kinds())):
        shown = hashlib.sha256(edit.before.numpy().tobytes()).hexdigest()[:8]
        path = folder / f"edit_{index:03d}-{shown}.png"
        if not path.is_file():
            save_png(edit.before, path)
        found.append((path, describe(edit.source), describe(edit.target)))
    return found
