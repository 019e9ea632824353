"""Errors that a user can act on: one line that says what was given, what was expected and what to do."""

from __future__ import annotations

import contextlib
import difflib
import errno
import signal
import sys
import threading
import warnings
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

_EXPECTED = {
    **dict.fromkeys(("int_type", "int_parsing", "int_from_float"), "a whole number"),
    **dict.fromkeys(("float_type", "float_parsing"), "a number"),
    **dict.fromkeys(("bool_type", "bool_parsing"), "true or false"),
    **dict.fromkeys(("tuple_type", "list_type"), "a list"),
    **dict.fromkeys(("dict_type", "model_type"), "names with values"),
    "string_type": "text",
    "literal_error": "{expected}",
    "greater_than_equal": "at least {ge}",
    "greater_than": "more than {gt}",
    "less_than_equal": "at most {le}",
    "less_than": "less than {lt}",
    "too_short": "at least {min_length} values, got {actual_length}",
    "too_long": "at most {max_length} values, got {actual_length}",
}
"""What was expected, by pydantic's name of the error."""


class RewardsdsError(ValueError):
    """Base class. `exit_code` is what the command ends with."""

    exit_code = 1


class SettingsError(RewardsdsError):
    """A setting, or a combination of settings, that cannot be used."""

    exit_code = 2


class RunFolderError(RewardsdsError):
    """A run folder that is taken, missing, busy or cannot be written."""


class CheckpointError(RewardsdsError):
    """A checkpoint that is damaged, incomplete or belongs to another run."""


class NotFiniteError(RewardsdsError):
    """A gradient, a parameter, or what was given is NaN or infinite."""


class InvisibleError(RewardsdsError):
    """Nothing is seen of an object, so that no picture of it tells how to change it."""


class WriteError(RewardsdsError):
    """Something could not be written, for example because the disk is full."""


class Interrupted(RewardsdsError):
    """The user or the system asked the run to stop; its state is saved."""

    def __init__(self, message: str, signal_number: int):
        super().__init__(message)
        self.exit_code = 128 + signal_number


@contextlib.contextmanager
def terminable() -> Iterator[None]:
    """The end of the program that SIGTERM asks for, or a terminal that is closed, as `Interrupted`, so that what was
    begun is tidied up; in the main thread only, where handlers can be set."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(number: int, frame: Any) -> None:
        raise Interrupted("stopped", number)

    numbers = [getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)]
    before = {number: signal.signal(number, stop) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def some_of(names: Sequence[str], most: int = 3) -> str:
    """`one, two, three and 5 more`"""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def did_you_mean(given: str, known: Iterable[str]) -> str:
    """` (did you mean --steps?)`, of the known names that are nearest to the given one; empty where none is near.

    What stands in a group is near by its own name too: `--view` to `--camera.views`.
    """
    key, names = _plain(given), list(known)

    def likeness(name: str) -> tuple[float, float]:
        whole, own = (
            difflib.SequenceMatcher(None, key, part).ratio()
            for part in (_plain(name), _plain(name).rpartition(".")[2])
        )
        return max(whole, own), whole

    best = max(names, key=likeness, default=None)
    return "" if best is None or likeness(best)[0] < 0.75 else f" (did you mean {best}?)"


def _plain(name: str) -> str:
    return name.lstrip("-").replace("-", "_").lower()


def setting_names(kind: type[BaseModel], prefix: str = "") -> Iterator[str]:
    """The names of settings and of groups of them, and `group.name` of those in a group."""
    for name, field in kind.model_fields.items():
        yield prefix + name
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield from setting_names(field.annotation, f"{prefix}{name}.")


def describe_validation(error: ValidationError, kind: type[BaseModel] | None = None) -> str:
    """pydantic's errors on one line: `candidates is 0: expected at least 1`.

    kind: what was validated; with it the nearest name is told for one that is unknown.
    """
    parts = []
    for detail in error.errors(include_url=False):
        name = ".".join(str(part) for part in detail["loc"])
        message = detail["msg"].removeprefix("Value error, ")
        context = detail.get("ctx", {})
        if not name:  # a rule across several fields: its message names them
            parts.append(message)
        elif detail["type"] == "extra_forbidden":
            parts.append(f"unknown setting {name}{did_you_mean(name, setting_names(kind) if kind else ())}")
        elif detail["type"] == "missing":
            parts.append(f"{name} is missing")
        elif isinstance(context.get("error"), SettingsError):  # a group's, which names what is in it
            parts.append(f"{name}: {message}")
        else:
            given = repr(detail["input"])
            given = given if len(given) <= 60 else f"{given[:40]}… ({len(str(detail['input']))} characters)"
            if detail["type"] in _EXPECTED:
                message = f"expected {_EXPECTED[detail['type']].format(**context)}"
            parts.append(f"{name} is {given}: {message[0].lower()}{message[1:]}")
    return "; ".join(" ".join(part.split()) for part in parts)


@contextlib.contextmanager
def settings_of_file(path: Path | str | None) -> Iterator[None]:
    """Puts the file's name before what is wrong with the settings that it holds; None: they are from no file."""
    try:
        yield
    except SettingsError as error:
        raise error if path is None else SettingsError(f"{path}: {error}") from None


def describe_os_error(error: OSError, path: Path | str | None = None) -> str:
    """`no space left on the disk while writing runs/a/metrics.jsonl`, and the like."""
    place = path if path is not None else error.filename
    reason = {
        errno.ENOSPC: "no space left on the disk",
        errno.EDQUOT: "disk quota exceeded",
        errno.EACCES: "permission denied",
        errno.EROFS: "the file system is read-only",
    }.get(error.errno or 0, (error.strerror or str(error) or type(error).__name__).lower())
    return f"{reason}: {place}" if place else reason


@contextlib.contextmanager
def warnings_in_a_line() -> Iterator[None]:
    """What this package warns of is told in a line, without the place in the code."""
    usual = warnings.showwarning

    def show(message: Warning | str, category: type[Warning], filename: str, lineno: int, *more: Any) -> None:
        ours = issubclass(category, UserWarning) and Path(filename).is_relative_to(Path(__file__).parent)
        if ours and "Triggered internally" not in str(message):  # as torch's kernels say of themselves
            print(f"warning: {message}", file=sys.stderr)
        else:
            usual(message, category, filename, lineno, *more)

    with warnings.catch_warnings():
        warnings.showwarning = show
        yield
