"""The grammar of toybox captions: scenes are drawn, described, and read back from text.

Every relation has its own set of phrases, so that a caption reads one way only:
`parse(describe(spec, rng)).spec` is `spec` for every valid scene. `WORDS` is all that the grammar can say,
and so the tokenizer's vocabulary.
"""

from rewardsds.toybox.lexicon import LONGEST_CAPTION, WORDS, split_words
from rewardsds.toybox.reading import Parsed, embedded_kinds, known_kinds, parse
from rewardsds.toybox.scene_sampling import sample_spec
from rewardsds.toybox.splits import Split, benchmark_prompts, split_of
from rewardsds.toybox.writing import describe

__all__ = [
    "LONGEST_CAPTION",
    "WORDS",
    "Parsed",
    "Split",
    "benchmark_prompts",
    "describe",
    "embedded_kinds",
    "known_kinds",
    "parse",
    "sample_spec",
    "split_of",
    "split_words",
]
