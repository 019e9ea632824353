"""Sets of prompts: the toybox's benchmark, the paper's, and files that users have. Nothing heavy is imported here.

toybox:test:25      25 prompts of the toybox's test split, whose pairs of toys no training caption names
toybox:validation   32 of its validation split, for tuning
paper               the 22 prompts of RewardSDS' NeRFs (arXiv 2503.09601)
FILE                as `prompt_files` reads them
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import cast

from rewardsds.errors import SettingsError
from rewardsds.evaluation.prompt_files import FILE_ENDINGS, read_prompts_in

PAPER = (
    "A basketball player dunking a basketball",
    "A basketball player in a red jersey, high resolution, 4K",
    "A bulldog wearing a black pirate hat",
    "A cartoon cat eating a cheesecake, realistic",
    "a DSLR photo of a ghost eating a hamburger",
    "A guitar player on stage, high quality, realistic, HD, 8K",
    "A man with a beard, wearing a suit, holding a pink briefcase, high quality, realistic, HD",
    "A penguin with a brown bag in the snow",
    "A man with a red scarf, highly detailed, 4K",
    "A shitzu with a bowtie, high quality, realistic, HD, 8K",
    "A skyscraper that reaches the clouds, high quality, realistic",
    "A tiger in the jungle, high quality, realistic, HD",
    "A white sofa next to a brown wooden table",
    "A young girl flying a kite, high quality",
    "An astronaut riding a horse",
    "Argentinian football player, celebrating a goal, HD",
    "Corgi riding a rocket",
    "King Kong climbing the Empire State Building",
    "Mini China town, highly detailed, 8K, HD",
    "Red drum set, high quality, realistic, HD, 8K",
    "Two dogs in the park",
    "World cup trophy, high quality, realistic, HD",
)
"""Prompts of the text-to-3D comparison with NeRFs (arXiv 2503.09601, appendix)."""

TOYBOX_PROMPTS = 32
"""Of a split, where no number is given."""

_TOYBOX = re.compile(r"toybox:(?P<split>\w+)(?::(?P<count>\d+))?")


def read_prompts(source: str | Path) -> list[str]:
    """The prompts of a set or a file, in its order. Raises SettingsError, in one line, for what is neither."""
    named = None if isinstance(source, Path) else _named_set(source)
    if named is not None:
        return named
    path = Path(source)
    if not path.exists():
        raise SettingsError(
            f"no prompts in {str(path)!r}: there is no such file; expected a file (.txt, {', '.join(FILE_ENDINGS)}), "
            "paper, or a set of the toybox such as toybox:test:25"
        )
    return read_prompts_in(path)


def _named_set(name: str) -> list[str] | None:
    if name == "paper":
        return list(PAPER)
    if not name.startswith("toybox"):
        return None
    from rewardsds.toybox.captions import Split, benchmark_prompts, embedded_kinds
    from rewardsds.toybox.splits import SPLITS

    found = _TOYBOX.fullmatch(name)
    if found is None or found["split"] not in SPLITS:
        raise SettingsError(
            f"no set of prompts {name!r}: expected toybox:test, toybox:validation or toybox:train, "
            "with a number behind a colon, such as toybox:test:25"
        )
    count = int(found["count"] or TOYBOX_PROMPTS)
    try:
        return benchmark_prompts(count, cast("Split", found["split"]), kinds=embedded_kinds())
    except ValueError as error:
        raise SettingsError(f"the set of prompts {name!r} cannot be made: {error}") from None
