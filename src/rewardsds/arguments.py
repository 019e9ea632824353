"""A command's arguments: tyro reads them into the command's class, and what is wrong with them is said in a line."""

from __future__ import annotations

import contextlib
import io
import re
import shlex
import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import is_dataclass
from typing import Any, TypeVar, get_type_hints

import tyro
from pydantic import BaseModel, ValidationError

from rewardsds.errors import SettingsError, describe_validation, did_you_mean

Command = TypeVar("Command")
Flat = tyro.conf.arg(name="")  # without a prefix before the names of a group's fields

TEXTS = ("PROMPT", "--source", "--target")
"""Arguments whose words are easily left without quotes."""
PLAINER = (
    (r"argument '(--[^']+)'", r"\1"),
    (r"argument '(?:settings\.)?(\w+)'", lambda found: found[1].upper()),
    (r"^Missing value for (\S+)\. Expected 1 values", r"\1 needs a value"),
    (r"^Missing value for (\S+)\. Expected (\d+) values", r"\1 needs \2 values"),
    (r"^invalid choice ('.*') for (\S+)\. Expected one of \((.*)\)", r"\2 is \1: expected \3"),
    (r"^Error parsing (\S+): invalid literal for int.+: ('.+')", r"\1 is \2: expected a whole number"),
    (r"^Error parsing (\S+): could not convert string to float: (.+)", r"\1 is \2: expected a number"),
    (r"^Error parsing (\S+): no type matching (.+) could be .+ from \[(.+)\]", r"\1 is \3: expected \2"),
    (r"^Missing from .+?: ", "missing: "),
    (r"\{None\}\|", "None or "),
    (r"\.? \(required\)", ";"),
)
"""What tyro says, and how it is said here."""


def parse(
    kind: type[Command],
    argv: Sequence[str],
    program: str,
    default: Command | None = None,
) -> Command:
    """tyro's parser, with its errors as one line. Raises SettingsError."""
    said = io.StringIO()
    extra: dict[str, Any] = {} if default is None else {"default": default}
    try:
        with contextlib.redirect_stderr(said):
            made, left = tyro.cli(
                kind,
                args=list(argv),
                prog=program,
                config=(tyro.conf.FlagCreatePairsOff,),
                return_unknown_args=True,
                **extra,
            )
    except SystemExit as stop:
        if not stop.code:
            raise
        _check_options(kind, argv, program)  # first: what tyro misses is often what is misspelt
        for cause in _causes(stop):
            if isinstance(cause, SettingsError):
                raise SettingsError(str(cause)) from None
        raise SettingsError(f"{_unboxed(said.getvalue())}; see `{program} --help`") from None
    if left:
        _check_options(kind, argv, program, left)
        raise SettingsError(_describe_left(left, kind, argv, program))
    return made


def _check_options(kind: type, argv: Sequence[str], program: str, left: Sequence[str] = ()) -> None:
    """Raises SettingsError for options that a command does not have. left: what tyro did not take."""
    known = [name for name in ("--help", "-h", *_options(kind)) if name not in left]
    given = [found[0] for argument in argv if (found := re.match(r"--?[A-Za-z][\w.-]*(?=$|=)", argument))]
    unknown = [name for name in given if name.replace("_", "-") not in known]
    if unknown:
        told = ", ".join(f"{name}{did_you_mean(name, known)}" for name in unknown)
        raise SettingsError(
            f"unknown {'option' if len(unknown) == 1 else 'options'} {told}; see `{program} --help`"
        )


def _options(kind: type, prefix: str = "--") -> Iterator[str]:
    """The options of a command, as tyro names its fields and those of its groups; what has no option as PROMPT."""
    hints = get_type_hints(kind, include_extras=True)
    for name in kind.model_fields if issubclass(kind, BaseModel) else kind.__dataclass_fields__:
        of, marks = getattr(hints[name], "__origin__", hints[name]), getattr(hints[name], "__metadata__", ())
        option = name.replace("_", "-")
        if isinstance(of, type) and (issubclass(of, BaseModel) or is_dataclass(of)):
            yield from _options(of, prefix if Flat in marks else f"{prefix}{option}.")
        elif tyro.conf.Positional in marks:
            yield name.upper()
        elif tyro.conf.Suppress not in marks:
            yield from (f"{prefix}{option}", *([f"{prefix}no-{option}"] if of is bool else []))


def _describe_left(left: Sequence[str], kind: type, argv: Sequence[str], program: str) -> str:
    """What to say of words that nothing takes: of a command with texts they belong to one without its quotes."""
    told = f"unexpected {', '.join(left)}"
    if not set(TEXTS) & set(_options(kind)):
        return f"{told}; see `{program} --help`"
    rest, words = list(left), [""]  # words: as they should have been typed
    for word in argv:
        option, last = words[-2:] if len(words) > 2 else ("", words[-1])
        is_text = last[:1] not in ("", "-") and (not option.startswith("-") or option in TEXTS)
        if is_text and rest[:1] == [word]:
            words[-1] += f" {rest.pop(0)}"
        else:
            words.append(word)
    example = " ".join([program, *map(_quoted, words[1:])])
    told += ": a text of several words goes in quotes"
    return f"{told}; see `{program} --help`" if rest else f"{told}, as in `{example}`"


def _quoted(word: str) -> str:
    return f'"{word}"' if " " in word and not set(word) & set('"$`\\!') else shlex.quote(word)


def _causes(error: BaseException) -> Iterator[BaseException]:
    """The errors that led to this one: tyro exits where a settings class has raised."""
    cause = error.__cause__ or error.__context__
    while cause is not None:
        yield SettingsError(describe_validation(cause)) if isinstance(cause, ValidationError) else cause
        cause = cause.__cause__ or cause.__context__


def _unboxed(text: str) -> str:
    """The first paragraph of a message that tyro has drawn a box around, of Unicode or ASCII, in words of our own."""
    _, *parts = re.split(r"^[│\s]*(?:╭|╰|[─-]{3}).*$", text, flags=re.MULTILINE)  # title, paragraphs, help
    body = textwrap.dedent("\n".join(line.strip("│").rstrip() for line in "".join(parts[:1]).splitlines()))
    body = re.sub(r"^ {4}(?=\S)(.+)", r"\1:", body, flags=re.MULTILINE)  # an option, above its meaning
    told = " ".join(body.strip().partition("\n\n")[0].split()).rstrip(".")
    for theirs, ours in PLAINER:
        told = re.sub(theirs, ours, told)
    return told.rstrip(";") or "the arguments could not be read"
