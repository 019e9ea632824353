"""Files that are whole or absent, also after a power cut, and the rubbish that a killed process leaves."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rewardsds.scenes.files import atomic_path

RESULTS_IN_PROGRESS = ".results-in-progress"
"""Folder inside a run folder in which results are made before they take their place."""

_TEMPORARY = re.compile(r"\..+-[0-9a-f]{32}\.\w+")  # the names that `atomic_path` gives


@contextmanager
def durable_path(path: Path) -> Iterator[Path]:
    """`atomic_path`, and on the disk when the block has ended.

    Without flushing, a power cut after the rename can leave an empty file under the final name.
    """
    with atomic_path(path) as temporary:
        yield temporary
        flush(temporary)
    flush(path.parent)


def write_bytes(path: Path, data: bytes) -> None:
    with durable_path(path) as temporary:
        temporary.write_bytes(data)


def write_text(path: Path, text: str) -> None:
    write_bytes(path, text.encode())


def flush(path: Path) -> None:
    if path.is_dir() and os.name == "nt":
        return  # folders cannot be opened there
    descriptor = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def remove_partial_files(folder: Path) -> None:
    """Removes what a process that was killed while writing has left in a run folder."""
    shutil.rmtree(folder / RESULTS_IN_PROGRESS, ignore_errors=True)
    for place in (folder, folder / "checkpoints", folder / "previews"):
        if place.is_dir():
            for path in place.iterdir():
                if _TEMPORARY.fullmatch(path.name) and path.is_file():
                    path.unlink(missing_ok=True)
