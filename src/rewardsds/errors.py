"""Errors that a user can act on: one line that says what was given, what was expected and what to do."""

from __future__ import annotations

import errno
from collections.abc import Sequence
from pathlib import Path

from pydantic import ValidationError


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
    """The gradient or a parameter is NaN or infinite."""


class WriteError(RewardsdsError):
    """Something could not be written, for example because the disk is full."""


class Interrupted(RewardsdsError):
    """The user or the system asked the run to stop; its state is saved."""

    def __init__(self, message: str, signal_number: int):
        super().__init__(message)
        self.exit_code = 128 + signal_number


def some_of(names: Sequence[str], most: int = 3) -> str:
    """`one, two, three and 5 more`"""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def describe_validation(error: ValidationError) -> str:
    """pydantic's errors on one line: `candidates is 0: input should be greater than or equal to 1`."""
    parts = []
    for detail in error.errors(include_url=False):
        name = ".".join(str(part) for part in detail["loc"])
        message = detail["msg"].removeprefix("Value error, ")
        if not name:  # a rule across several fields: its message names them
            parts.append(message)
        elif detail["type"] == "extra_forbidden":
            parts.append(f"unknown setting {name}")
        elif detail["type"] == "missing":
            parts.append(f"{name} is missing")
        else:
            given = repr(detail["input"])
            given = given if len(given) <= 60 else f"{given[:40]}… ({len(str(detail['input']))} characters)"
            parts.append(f"{name} is {given}: {message[0].lower()}{message[1:]}")
    return "; ".join(" ".join(part.split()) for part in parts)


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
