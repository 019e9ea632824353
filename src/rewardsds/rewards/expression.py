"""Rewards as text: a name, a weighted sum such as "clip + 0.5 * aesthetic", or "min(clip, aesthetic)", nested."""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple, TypeAlias, Union

from rewardsds.errors import SettingsError

GRADER = "grader:"
MIN = "min("
PLUS = " + "

TOYBOX_REWARDS = ("clip", "aesthetic", "image-reward")
"""The toybox's own, by name."""
FUNCTION = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*")
"""`package.module:name`."""

Expression: TypeAlias = Union[str, "Sum", "Weakest"]
"""A str is the name of a single reward."""


class Sum(NamedTuple):
    terms: tuple[tuple[float, Expression], ...]


class Weakest(NamedTuple):
    parts: tuple[Expression, ...]


def parse(text: str) -> Expression:
    """Names may hold what paths do: " + " ends one, and in a min a comma or the min's own bracket.

    Raises SettingsError in one line.
    """
    parser = _Parser(text.strip())
    found = parser.sum(inside=False)
    if parser.at < len(parser.text):
        raise parser.wrong(f"goes on with {parser.text[parser.at :]!r} after a bracket that closes")
    return found


def names(expression: Expression) -> tuple[str, ...]:
    """The single rewards that it is made of, each once."""
    if isinstance(expression, str):
        return (expression,)
    parts = [part for _, part in expression.terms] if isinstance(expression, Sum) else expression.parts
    return tuple(dict.fromkeys(name for part in parts for name in names(part)))


def from_anywhere(text: str) -> str:
    """The same with whole paths in place of those that are relative to the current folder, of files and folders that
    are there; as it is where it cannot be read, or could not be read with them."""
    parser = _Parser(text.strip())
    try:
        parser.sum(inside=False)
    except SettingsError:
        return text
    made, wanted = parser.text, []
    for name, first, end in reversed(parser.names):
        own = name in TOYBOX_REWARDS or name.startswith(GRADER) or FUNCTION.fullmatch(name)
        wanted.insert(0, name if own else whole_path(name))
        made = made[:first] + wanted[0] + made[end:]
    try:
        return made if names(parse(made)) == tuple(dict.fromkeys(wanted)) else text
    except SettingsError:
        return text


def whole_path(name: str) -> str:
    """Of a file or folder that is there; other names as they are."""
    path = Path(name).expanduser()
    return str(path.absolute()) if path.exists() else name


_PLUS = re.compile(rf"\s*{re.escape(PLUS)}")
_COMMA = re.compile(r"\s*,")
_MIN = re.compile(rf"\s*{re.escape(MIN)}")
_FACTOR = re.compile(r"\s*(-?[\d.]+)\s*\*")
_WEIGHT = re.compile(r"-?(\d+\.?\d*|\.\d+)")
_CLOSING = re.compile(rf"\s*\)(?=\s*(?:$|,|\)|{re.escape(PLUS)}))")
"""A bracket that may close a min, by what follows; any other is a letter of a name."""


class _Parser:
    """at: where what is not read yet begins. names: the single rewards, with where they begin and end."""

    def __init__(self, text: str) -> None:
        self.text, self.at = text, 0
        self.names: list[tuple[str, int, int]] = []

    def wrong(self, what: str) -> SettingsError:
        return SettingsError(
            f"the reward {self.text!r} {what}: expected a name, a sum such as 'clip + 0.5 * aesthetic', or "
            "'min(clip, aesthetic)'"
        )

    def sum(self, inside: bool) -> Expression:
        """inside: of a min."""
        terms = [self._term(inside)]
        while self._took(_PLUS):
            terms.append(self._term(inside))
        weight, only = terms[0]
        if weight is None and len(terms) == 1:
            return only
        return Sum(tuple((1.0 if weight is None else weight, part) for weight, part in terms))

    def _term(self, inside: bool) -> tuple[float | None, Expression]:
        """Its weight, if there is one, and what is weighted, which may have one of its own."""
        found = self._took(_FACTOR)
        if found is None:
            return None, self._weakest() if self._took(_MIN) else self._name(inside)
        if not _WEIGHT.fullmatch(found[1]):
            raise self.wrong(f"has a weight {found[1]}, which is no number")
        inner, part = self._term(inside)
        return float(found[1]), part if inner is None else Sum(((inner, part),))

    def _weakest(self) -> Weakest:
        parts = [self.sum(inside=True)]
        while self._took(_COMMA):
            parts.append(self.sum(inside=True))
        if not self._took(_CLOSING):
            raise self.wrong(f"has a {MIN!r} that no bracket closes")
        return Weakest(tuple(parts))

    def _name(self, inside: bool) -> str:
        first, open_brackets = self.at, 0
        while self.at < len(self.text) and not self.text.startswith(PLUS, self.at):
            sign = self.text[self.at]
            if inside and (sign == "," or (not open_brackets and _CLOSING.match(self.text, self.at))):
                break
            open_brackets = max(0, open_brackets + (sign == "(") - (sign == ")"))
            self.at += 1
        if inside and self.at == len(self.text) and self.text.endswith(")"):
            self.at -= 1  # "min(clip, a(b)": of the folder "a(b"
        name = self.text[first : self.at].strip()
        begin = self.text.index(name, first)
        self.names.append((name, begin, begin + len(name)))
        if not name:
            raise self.wrong(f"lacks a name after {self.text[:first].strip()!r}" if first else "has no name")
        if name == GRADER:
            raise self.wrong(f"names no model after {GRADER!r}, as in {GRADER}gpt-4o-mini")
        return name

    def _took(self, pattern: re.Pattern[str]) -> re.Match[str] | None:
        found = pattern.match(self.text, self.at)
        self.at = found.end() if found else self.at
        return found
