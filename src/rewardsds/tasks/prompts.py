"""What a prior can make of a prompt: words that it does not know are named, and left out."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from rewardsds.errors import RewardsdsError
from rewardsds.priors.base import Prior

OTHER_PRIOR = "for open vocabulary give a real prior: --prior FOLDER_OR_HUB_ID"

# Words that ask for nothing by themselves.
FUNCTION_WORDS = frozenset(
    {"a", "an", "the", "of", "in", "on", "at", "by", "to", "and", "or", "with", "without", "near", "next"}
    | {"under", "over", "from", "for", "is", "are", "his", "her", "its", "their"}
)


@dataclass(frozen=True)
class KnownPrompt:
    """text: what the prior is asked for. notes: what the user should know about it."""

    text: str
    notes: tuple[str, ...] = ()


def known_prompt(prompt: str, prior: Prior, prior_name: str) -> KnownPrompt:
    """The part of a prompt that the prior knows. Raises RewardsdsError if that is nothing."""
    from rewardsds.toybox.captions import known_kinds

    if prior_name == "toybox":
        return toybox_prompt(prompt, known_kinds(prior))
    return _open_prompt(prompt, prior, prior_name)


def toybox_prompt(prompt: str, kinds: Sequence[str]) -> KnownPrompt:
    """The toybox has a grammar: what it knows of a prompt is said again in whole phrases.

    Leaving out a word alone would leave half a phrase, "a penguin and a". kinds: toys that the prior was trained on.
    Raises RewardsdsError where a prompt names none of them.
    """
    from rewardsds.toybox.captions import LONGEST_CAPTION, describe, parse, split_words

    parsed = parse(prompt, kinds)
    notes = parsed.notes
    if parsed.spec is None:
        problem = notes[0] if notes else "the toybox finds no toy in it"
        raise RewardsdsError(
            f"nothing to make of the prompt {_short(prompt)!r}: {problem}; name a toy such as a penguin or a "
            f"red cube, or {OTHER_PRIOR}"
        )
    too_long = len([word for word in split_words(prompt) if word.isalnum()]) > LONGEST_CAPTION
    if not (notes or too_long):
        return KnownPrompt(prompt)
    text = describe(parsed.spec)
    hint = f" ({OTHER_PRIOR})" if parsed.unknown else ""
    return KnownPrompt(text, (*notes, f"going on with {text!r}{hint}"))


def _open_prompt(prompt: str, prior: Prior, prior_name: str) -> KnownPrompt:
    unknown = prior.unknown_words(prompt)
    if not unknown:
        return KnownPrompt(prompt)
    note = f"the prior {prior_name} does not know: {', '.join(unknown)}"
    pattern = r"(?<!\w)(?:" + "|".join(re.escape(word) for word in unknown) + r")(?!\w)"
    text = " ".join(re.sub(pattern, " ", prompt, flags=re.IGNORECASE).split())
    content = [word for word in re.findall(r"\w+", text.lower()) if word not in FUNCTION_WORDS]
    if not content:
        raise RewardsdsError(f"nothing to make of the prompt {_short(prompt)!r}: {note}; {OTHER_PRIOR}")
    return KnownPrompt(text, (note, f"going on with {text!r}"))


def known_list(text: str, prior: Prior) -> str:
    """The items of a list "one, another, …" that the prior knows every word of."""
    items = [item.strip() for item in text.split(",")]
    return ", ".join(item for item in items if item and not prior.unknown_words(item))


def _short(prompt: str) -> str:
    return prompt if len(prompt) <= 80 else prompt[:79] + "…"
