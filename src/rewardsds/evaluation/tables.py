"""Figures as tables: a mean with its interval in a cell, Markdown, CSV and JSON, and files of them."""

from __future__ import annotations

import csv
import io
import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from rewardsds.errors import SettingsError
from rewardsds.evaluation.metrics import MetricInfo
from rewardsds.evaluation.statistics import Estimate
from rewardsds.scenes.files import atomic_path

GAP = "–"
DAGGER = "†"
MOST_REASONS = 3


def number(value: float, info: MetricInfo, sign: bool = False) -> str:
    """A value as its metric is shown: 0.2534 of a cosine is 25.34, 0.755 of a share 75.5%. Minus is −."""
    shown = f"{value * info.scale:{'+' if sign else ''}.{info.digits}f}"
    if not shown.strip("+-0."):
        shown = shown.removeprefix("-")  # no minus before zero
    return shown.replace("-", "−") + info.unit


def bounds(estimate: Estimate, info: MetricInfo, sign: bool = False) -> str:
    """The 95% interval, "68.1% to 82.0%"; nothing where nothing varies."""
    if estimate.low == estimate.high:
        return ""
    return f"{number(estimate.low, info, sign)} to {number(estimate.high, info, sign)}"


def cell(estimate: Estimate | None, info: MetricInfo, sign: bool = False) -> str:
    """A mean and its 95% interval, "75.5% (68.1% to 82.0%)"; the mean alone where nothing varies; – where none is."""
    if estimate is None:
        return GAP
    mean, interval = number(estimate.value, info, sign), bounds(estimate, info, sign)
    return f"{mean} ({interval})" if interval else mean


def heading(info: MetricInfo) -> str:
    """The title, and whether high or low is good."""
    return f"{info.title} {'↑' if info.higher_is_better else '↓'}"


def markdown(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Lines of a table; what stands in a cell is kept in it."""
    lines = [head, ["---"] * len(head), *rows]
    return [f"| {' | '.join(_in_cell(text) for text in line)} |" for line in lines]


def _in_cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


def counted(texts: Sequence[str]) -> str:
    """Each text once, the most frequent first, with how often it was said; of many only the first few."""
    counts = Counter(texts).most_common()
    said = [text if len(counts) == 1 else f"{text} ({count})" for text, count in counts[:MOST_REASONS]]
    more = [f"and {len(counts) - MOST_REASONS} other reasons"] if len(counts) > MOST_REASONS else []
    return "; ".join([*said, *more])


def csv_text(head: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """Comma-separated, a line a row; None is empty."""
    file = io.StringIO()
    csv.writer(file, lineterminator="\n").writerows([head, *rows])
    return file.getvalue()


def json_text(value: Mapping[str, Any]) -> str:
    return json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False) + "\n"


ENDINGS = (".json", ".csv", ".md")


def check_files(paths: Sequence[Path], force: bool) -> None:
    """Raises SettingsError for files that `write_files` could not or must not write."""
    for path in paths:
        if path.suffix.lower() not in ENDINGS:
            raise SettingsError(f"out is {path}: expected a name that ends in {', '.join(ENDINGS)}")
        if path.is_dir():
            raise SettingsError(f"{path} is a folder: give a name for a file in it")
        if path.exists() and not force:
            raise SettingsError(f"{path} exists: replace it with --force, or give another name with --out")
    if len({path.resolve() for path in paths}) < len(paths):
        raise SettingsError("two of the files of --out are the same")


def write_files(paths: Sequence[Path], texts: Mapping[str, Callable[[], str]]) -> None:
    """Each file whole or not at all. texts: what is written, by the file's ending."""
    for path in paths:
        text = texts[path.suffix.lower()]()
        with atomic_path(path) as temporary:
            temporary.write_text(text, encoding="utf-8", newline="\n")
