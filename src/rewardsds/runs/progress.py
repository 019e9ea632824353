"""What a person sees while a run goes on: a live line on a terminal, a plain line every tenth elsewhere."""

from __future__ import annotations

import sys
import time
from contextlib import suppress
from dataclasses import dataclass, field
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from typing_extensions import Self


@dataclass
class ProgressLine:
    """Counts steps from `start` to `total` on `console` (standard error by default)."""

    total: int
    start: int = 0
    console: Console = field(default_factory=lambda: Console(stderr=True, highlight=False))

    def __enter__(self) -> Self:
        self._began = time.monotonic()
        self._next_line = 0.0
        self._live: Progress | None = None
        self._task = TaskID(0)
        if self.console.is_terminal:
            self._live = Progress(
                TextColumn("step {task.completed}/{task.total}"),
                BarColumn(bar_width=24),
                TextColumn("{task.fields[figures]}"),
                TimeRemainingColumn(),
                TextColumn("left"),
                console=self.console,
                refresh_per_second=4,
            )
            self._task = self._live.add_task("", total=self.total, completed=self.start, figures="")
            self._live.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._live is not None:
            self._live.stop()

    def update(self, steps_done: int, reward: tuple[float, float] | None, loss: float) -> None:
        """reward: mean and best over the candidates; None on steps without a reward."""
        if self._live is not None:
            figures = f"loss {loss:.3g}"
            if reward is not None:
                figures = f"reward {reward[0]:.3f} (best {reward[1]:.3f})  {figures}"
            self._live.update(self._task, completed=steps_done, figures=figures)
            return
        share = steps_done / self.total
        if share < self._next_line and steps_done < self.total:
            return
        self._next_line = int(share * 10 + 1) / 10
        seconds = (time.monotonic() - self._began) / max(1, steps_done - self.start)
        left = format_seconds(seconds * (self.total - steps_done))
        rewards = "" if reward is None else f"  reward {reward[0]:.3f} (best {reward[1]:.3f})"
        self.say(f"step {steps_done}/{self.total}{rewards}  loss {loss:.3g}  {left} left")

    def say(self, message: str) -> None:
        say(self.console, message)


def say(console: Console, message: str) -> None:
    """One line, without markup. A reader that went away (a closed pipe) must not end a run."""
    with suppress(BrokenPipeError, ValueError):
        console.print(message, markup=False, soft_wrap=True)


def format_seconds(seconds: float) -> str:
    if seconds < 100:
        return f"{seconds:.0f} s"
    if seconds < 5_400:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3_600:.1f} h"


def peak_memory(device: str) -> str:
    """The most memory this process has held, in words."""
    if device.startswith("cuda"):
        import torch

        return f"{torch.cuda.max_memory_allocated(device) / 2**30:.2f} GiB on the GPU"
    try:
        import resource
    except ImportError:  # Windows
        import psutil

        peak = psutil.Process().memory_info().peak_wset  # pyright: ignore[reportAttributeAccessIssue]
    else:
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        peak = peak if sys.platform == "darwin" else peak * 1024  # bytes there, KiB elsewhere
    return f"{peak / 2**30:.2f} GiB"
