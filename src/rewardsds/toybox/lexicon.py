"""The words and phrases of toybox captions. The first phrase of each tuple is the canonical one."""

from __future__ import annotations

import re
import unicodedata
from typing import Any

from rewardsds.toybox.specification import COLOURS, KINDS, Relation

SYNONYMS: dict[str, tuple[str, ...]] = {
    "backpack": ("rucksack",),
    "bag": ("handbag",),
    "ball": ("sphere",),
    "car": ("automobile",),
    "couch": ("sofa",),
    "cube": ("box",),
    "cup": ("mug",),
    "dog": ("puppy",),
    "donut": ("doughnut",),
    "hat": ("cap",),
    "house": ("cottage",),
    "mushroom": ("toadstool",),
    "rocket": ("spaceship",),
    "sheep": ("lamb",),
    "skyscraper": ("tower",),
    "table": ("desk",),
}
IRREGULAR_PLURALS = {
    "box": "boxes",
    "couch": "couches",
    "puppy": "puppies",
    "sheep": "sheep",
    "snowman": "snowmen",
}
COLOUR_SYNONYMS: dict[str, tuple[str, ...]] = {"grey": ("gray",), "purple": ("violet",)}
WOODEN_KINDS = ("table", "chair", "house")  # where brown may be said as "wooden"
NUMBERS = {1: "one", 2: "two", 3: "three"}

RELATION_PHRASES: dict[Relation, tuple[str, ...]] = {
    "and": ("and", "together with"),
    "next to": ("next to", "beside"),
    "on top of": ("on top of", "on"),
    "left of": ("on the left of", "to the left of", "left of"),
    "right of": ("on the right of", "to the right of", "right of"),
    "wearing": ("wearing",),  # and "with a red hat on"
    "with": ("with", "holding", "carrying"),
}
GROUND_PHRASES: dict[str, tuple[str, ...]] = {
    "snow": ("in the snow", "on snow", "on the snow"),
    "grass": ("in the park", "on the grass", "on grass"),
    "sand": ("on sand", "on the sand", "at the beach"),
    "wooden-floor": ("on a wooden floor", "on the wooden floor"),
}
GROUND_NOUNS = {"snow": "snow", "grass": "grass", "park": "grass", "sand": "sand", "beach": "sand"} | {
    "floor": "wooden-floor",
    "wooden floor": "wooden-floor",
}
PREFIXES = ("a photo of", "a picture of", "an image of", "a DSLR photo of", "a render of", "a 3D render of")
SUFFIXES = ("high quality", "realistic", "HD", "4K", "8K", "highly detailed", "high resolution")
SKYSCRAPER_BOAST = "that reaches the clouds"


def plural(noun: str) -> str:
    return IRREGULAR_PLURALS.get(noun, noun + "s")


def words_of(kind: str) -> set[str]:
    """Every word that names the kind, in the singular and the plural."""
    nouns = (kind, *SYNONYMS.get(kind, ()))
    return {*nouns, *(plural(noun) for noun in nouns)}


def split_words(text: str) -> list[str]:
    """Lower-case words without accents, and punctuation that ends a phrase (",", ";", ".", ":").

    The tokenizer splits words in the same way, and drops all punctuation.
    """
    text = unicodedata.normalize("NFKD", text)
    text = "".join(character for character in text if not unicodedata.combining(character)).lower()
    return re.findall(r"[^\W_]+|[,;.:]", re.sub(r"['’]s\b", "", text))


Item = tuple[str, Any]  # what a phrase is ("kind", "colour", "relation", …), and its value


def _phrase_table() -> dict[tuple[str, ...], Item]:
    table: dict[tuple[str, ...], Item] = {}

    def add(phrase: str, what: str, value: Any = None) -> None:
        words = tuple(split_words(phrase))
        assert table.setdefault(words, (what, value)) == (what, value), f"{phrase!r} has two meanings"

    for phrase in (*PREFIXES, "there is", "there are", "of"):
        add(phrase, "lead")
    for phrase in (*SUFFIXES, SKYSCRAPER_BOAST, "toy", "photo", "picture", "image", "render"):
        add(phrase, "filler")
    for kind in KINDS:
        for noun in (kind, *SYNONYMS.get(kind, ())):
            add(noun, "kind", (kind, False))
            if plural(noun) != noun:
                add(plural(noun), "kind", (kind, True))
    for colour in COLOURS:
        for word in (colour, *COLOUR_SYNONYMS.get(colour, ())):
            add(word, "colour", colour)
    add("wooden", "wooden")
    for article in ("a", "an"):
        add(article, "count", 1)
    for count, word in NUMBERS.items():
        add(word, "count", count)
    add("the", "count", None)
    for relation, phrases in RELATION_PHRASES.items():
        for phrase in phrases:
            # a bare "on" waits for what follows it: "a ball on a cube", but "a penguin with a hat on"
            add(phrase, "relation", "on" if phrase == "on" else relation)
    for noun, ground in GROUND_NOUNS.items():
        add(noun, "ground noun", ground)
        for preposition in ("in", "on", "at"):
            for article in ("", "the ", "a "):
                add(f"{preposition} {article}{noun}", "ground", ground)
    # What is left are the single words of the phrases above ("top", "left", …): known, without meaning alone.
    for words in list(table):
        for word in words:
            table.setdefault((word,), ("filler", None))
    return table


PHRASES = _phrase_table()
LONGEST_PHRASE = max(len(words) for words in PHRASES)

WORDS: tuple[str, ...] = tuple(sorted({word for words in PHRASES for word in words}))
LONGEST_CAPTION = 22  # words; with <bos> and <eos> the 24 places of the tokenizer
