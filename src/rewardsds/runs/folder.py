"""The run folder: what lies where, who may write into it, and the metrics.

settings.yaml   resolved settings; can be given back with --config
metrics.jsonl   one line a step
checkpoints/    step_000123.safetensors, the newest two
previews/       step_000050.png, step_000050_candidate_0.png, …
results.json    written last: a run that has it is finished
report.html     and the result files of the task
"""

from __future__ import annotations

import io
import json
import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from rewardsds.errors import RunFolderError, WriteError, describe_os_error
from rewardsds.runs import atomic
from rewardsds.runs.settings import RunSettings, read_yaml, to_yaml


class RunFolder:
    """Paths of one run, and its metrics."""

    def __init__(self, path: Path):
        self.path = path
        self.settings = path / "settings.yaml"
        self.metrics = path / "metrics.jsonl"
        self.checkpoints = path / "checkpoints"
        self.previews = path / "previews"
        self.results = path / "results.json"
        self.report = path / "report.html"

    @property
    def is_run(self) -> bool:
        return self.settings.is_file()

    @property
    def is_finished(self) -> bool:
        return self.results.is_file()

    def read_settings(self) -> dict[str, Any]:
        """The mapping in `settings.yaml`. Raises RunFolderError if this is no run folder."""
        if not self.path.is_dir():
            raise RunFolderError(f"no run folder {self.path}")
        if not self.is_run:
            raise RunFolderError(
                f"{self.path} is not a run folder: it has no settings.yaml; a run that never began has "
                "nothing to resume, start it again"
            )
        return read_yaml(self.settings)

    def read_results(self) -> dict[str, Any]:
        return json.loads(self.results.read_text(encoding="utf-8"))

    def read_metrics(self, before: int | None = None) -> list[dict[str, Any]]:
        """The whole lines of `metrics.jsonl`, of steps below `before`; a torn last line is left out."""
        if not self.metrics.is_file():
            return []
        lines = []
        with self.metrics.open(encoding="utf-8", errors="replace") as file:
            for text in file:
                try:
                    line = json.loads(text)
                except json.JSONDecodeError:
                    break
                if before is not None and line["step"] >= before:
                    break
                lines.append(line)
        return lines

    def truncate_metrics(self, steps_done: int) -> None:
        """Drops lines of steps that will be made again."""
        lines = self.read_metrics(before=steps_done)
        atomic.write_text(self.metrics, "".join(metrics_line(line) for line in lines))

    def begin(self, settings: RunSettings) -> None:
        """Empties the folder of an earlier run and writes the settings."""
        self._remove_run()
        atomic.write_text(self.settings, to_yaml(settings))  # first: with it the folder is a run
        self.previews.mkdir()
        self.checkpoints.mkdir()

    def _remove_run(self) -> None:
        """Removes what a run writes, and nothing else that somebody may have put there."""
        names: list[str] = []
        with suppress(OSError, ValueError, KeyError, TypeError):
            names = [Path(name).name for name in self.read_results()["files"]]
        # results.json goes first: a half-removed run must not look finished
        for path in (self.results, self.settings, self.metrics, self.report, self.path / "error.log"):
            path.unlink(missing_ok=True)
        for name in names:
            (self.path / name).unlink(missing_ok=True)
        for folder in (self.checkpoints, self.previews):
            shutil.rmtree(folder, ignore_errors=True)
        atomic.remove_partial_files(self.path)


def metrics_line(values: dict[str, Any]) -> str:
    return json.dumps(values, allow_nan=False) + "\n"


class MetricsWriter:
    """Appends lines to `metrics.jsonl`, each handed to the system at once: a killed process loses none."""

    def __init__(self, path: Path):
        self.path = path
        self._file: io.FileIO = io.FileIO(path, "ab")

    def write(self, values: dict[str, Any]) -> None:
        data = metrics_line(values).encode()
        try:
            written = self._file.write(data)
            if written != len(data):  # a nearly full disk takes a part of a line; the rest raises
                self._file.write(data[written or 0 :])
        except OSError as error:
            raise OSError(error.errno, error.strerror, str(self.path)) from error

    def flush(self) -> None:
        os.fsync(self._file.fileno())

    def close(self) -> None:
        with suppress(OSError):
            self._file.close()


@contextmanager
def claimed(path: Path, *, force: bool = False, resume: bool = False) -> Iterator[RunFolder]:
    """The folder of a run, new or to be resumed, made and locked as `made_and_locked` does it.

    force: a new run may take the place of one that is there. Raises RunFolderError for a folder with anything else.
    """
    folder = RunFolder(path)
    if resume:
        folder.read_settings()
    elif not is_free(path):
        _check_replaceable(folder, force)
    with made_and_locked(path):
        yield folder


def is_free(path: Path) -> bool:
    """Whether a folder is not there yet, or is empty. Raises RunFolderError for what can be no folder."""
    try:
        if not path.exists():
            return True
        if path.is_dir():
            return not any(path.iterdir())
    except OSError as error:
        raise RunFolderError(
            f"cannot use the folder ({describe_os_error(error, path)}); choose another folder with --out"
        ) from None
    raise RunFolderError(f"{path} is a file, not a folder; choose another folder with --out")


def _check_replaceable(folder: RunFolder, force: bool) -> None:
    path = folder.path
    if not folder.is_run:
        raise RunFolderError(
            f"{path} is not empty and holds no run, so it is left alone; choose another folder with --out"
        )
    if force:
        return
    if folder.is_finished:
        raise RunFolderError(
            f"{path} already holds a finished run: replace it with --force, or choose another folder with --out"
        )
    raise RunFolderError(
        f"{path} already holds an unfinished run: continue it with `rewardsds resume {path}`, replace it with --force, "
        "or choose another folder with --out"
    )


@contextmanager
def made_and_locked(path: Path) -> Iterator[None]:
    """Makes the folder if need be, checks that it can be written, and keeps other processes out of it.

    If nothing was written by the end of the block, for example because the prior could not be loaded, a folder that
    was made here is removed again.
    """
    made = _make(path)
    try:
        if not os.access(path, os.W_OK | os.X_OK):
            raise RunFolderError(
                f"cannot write into {path}: permission denied; choose another folder with --out"
            )
        with locked(path):
            yield
    finally:
        for new in reversed(made):
            with suppress(OSError):
                new.rmdir()  # only works while it is empty


def _make(path: Path) -> list[Path]:
    """Makes the folder and its parents; returns those that are new, outermost first."""
    missing = [folder for folder in (path, *path.parents) if not folder.exists()]
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise WriteError(
            f"cannot make the folder ({describe_os_error(error, path)}); choose another folder with --out"
        ) from None
    return missing[::-1]


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """An advisory lock on the folder itself; it vanishes with the process, however that ends.

    Raises RunFolderError where another process has it.
    """
    if sys.platform == "win32":
        yield
        return
    import fcntl

    descriptor = os.open(path, os.O_RDONLY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise RunFolderError(f"{path} is in use by another process that is still running") from None
        except OSError:  # file systems without locks
            pass
        yield
    finally:
        os.close(descriptor)
