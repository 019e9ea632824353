"""Start or resume a run of any task."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.console import Console

from rewardsds.errors import SettingsError
from rewardsds.runs import loop
from rewardsds.runs.loop import Job, RunResult
from rewardsds.runs.settings import RunSettings
from rewardsds.tasks.settings import (
    TASKS,
    DistillationSettings,
    EditSettings,
    TextTo3DSettings,
    TextToImageSettings,
)


def run(settings: DistillationSettings, *, force: bool = False, console: Console | None = None) -> RunResult:
    """Makes what the settings describe, in `settings.out` (or its default folder).

    force: replace a run that the folder already holds.
    """
    return loop.start(settings.with_out(), build, force=force, console=console)


def resume(folder: Path, *, console: Console | None = None) -> RunResult:
    """Continues the run in a folder; the end is bit-identical to that of an undisturbed run."""
    return loop.resume(folder, settings_from, build, console=console)


def settings_from(values: Mapping[str, Any]) -> DistillationSettings:
    """Settings from the mapping of a `settings.yaml`, which names its task."""
    given = dict(values)
    task = given.pop("task", None)
    if task in TASKS:
        return TASKS[task](**given)
    raise SettingsError(f"task is {task!r} in these settings; expected image, 3d or edit")


def build(settings: RunSettings) -> Job:
    if isinstance(settings, TextToImageSettings):
        from rewardsds.tasks import text_to_image

        return text_to_image.build(settings)
    if isinstance(settings, TextTo3DSettings):
        from rewardsds.tasks import text_to_3d

        return text_to_3d.build(settings)
    if isinstance(settings, EditSettings):
        from rewardsds.tasks import edit

        return edit.build(settings)
    raise AssertionError(type(settings))
