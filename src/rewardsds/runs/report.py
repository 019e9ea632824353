"""`report.html`: one file that shows a run, without any request to the network."""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup
from PIL import Image

from rewardsds.runs import atomic
from rewardsds.runs.charts import Series, line_chart, smoothed
from rewardsds.runs.folder import RunFolder
from rewardsds.runs.progress import format_seconds
from rewardsds.runs.settings import RunSettings

MIME = {".png": "image/png", ".mp4": "video/mp4", ".jpg": "image/jpeg"}


@dataclass(frozen=True)
class CandidateCard:
    picture: str
    reward: float
    weight: float


def write_report(
    folder: RunFolder,
    settings: RunSettings,
    prompts: Sequence[str],
    names: Sequence[str],
    lines: Sequence[Mapping[str, Any]],
    summary: Mapping[str, Any],
) -> None:
    """names: result files in the folder, the one to show first in front. lines: the metrics, one a step."""
    atomic.write_text(folder.report, render_report(folder, settings, prompts, names, lines, summary))


def render_report(
    folder: RunFolder,
    settings: RunSettings,
    prompts: Sequence[str],
    names: Sequence[str],
    lines: Sequence[Mapping[str, Any]],
    summary: Mapping[str, Any],
) -> str:
    template = page_template(resource("report.html.jinja"))
    files = [folder.path / name for name in names]
    pictures = [path for path in files if path.suffix in (".png", ".jpg")]
    videos = [path for path in files if path.suffix == ".mp4"]
    history = _history(folder.previews)
    return template.render(
        style=page_style(),
        prompts=prompts,
        task=settings.task,
        videos=[data_uri(path) for path in videos],
        poster=data_uri(pictures[0]) if pictures else "",
        pictures=[(path.stem, data_uri(path)) for path in pictures],
        downloads=[path.name for path in files if path.suffix not in MIME],
        history=[(step, data_uri(path)) for step, path in history],
        wide=any(_is_wide(path) for _, path in history),
        candidates=[
            (line["step"] + 1, _cards(folder.previews, line)) for line in lines if line["candidates_kept"]
        ],
        charts=[chart for chart in _charts(lines) if chart],
        settings=_rows(settings.model_dump(mode="json", exclude={"out"})),
        steps=len(lines),
        seconds=format_seconds(summary["seconds"]),
        stages=_stages(summary["seconds_by_stage"]),
        network_evaluations=f"{summary['network_evaluations']:,}",
        evaluations_per_step=f"{summary['network_evaluations'] / max(1, len(lines)):.1f}",
        final_reward=_final_reward(lines),
        left_out=summary["rewards_left_out"],
        peak_memory=summary["peak_memory"],
        device=summary["device"],
        torch_version=summary["hardware"]["torch"],
    )


def resource(name: str) -> str:
    """A file beside this module."""
    return resources.files("rewardsds.runs").joinpath(name).read_text(encoding="utf-8")


def page_template(text: str) -> jinja2.Template:
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    return environment.from_string(text)


def page_style() -> Markup:
    """The style sheet of all pages, light and dark."""
    return Markup(resource("report.css"))


def data_uri(path: Path) -> str:
    encoded = base64.b64encode(path.read_bytes()).decode()
    return f"data:{MIME[path.suffix]};base64,{encoded}"


def _history(previews: Path, most: int = 12) -> list[tuple[int, Path]]:
    """At most `most` of the pictures of the state, spread over the run, the last among them."""
    found = sorted(path for path in previews.glob("step_*.png") if re.fullmatch(r"step_\d+", path.stem))
    if len(found) > most:
        found = [found[round(i * (len(found) - 1) / (most - 1))] for i in range(most)]
    return [(int(path.stem.split("_")[1]), path) for path in found]


def _is_wide(picture: Path) -> bool:
    """Whether a picture shows several views beside each other."""
    with Image.open(picture) as image:
        return image.width >= 2 * image.height


def _cards(previews: Path, line: Mapping[str, Any]) -> list[CandidateCard]:
    """The candidates of a step, the best first. The figures are means over the items of a batch."""

    def mean(values: Sequence[float]) -> float:
        return sum(values) / len(values)

    cards = []
    for index, (rewards, weights) in enumerate(zip(line["rewards"], line["weights"], strict=True)):
        path = previews / f"step_{line['step'] + 1:06d}_candidate_{index}.png"
        if path.is_file():
            cards.append(CandidateCard(data_uri(path), mean(rewards), mean(weights)))
    return sorted(cards, key=lambda card: -card.reward)


def _charts(lines: Sequence[Mapping[str, Any]]) -> list[str]:
    rewarded = [line for line in lines if line["rewards"] is not None]
    steps = [line["step"] + 1 for line in rewarded]
    mean = [sum(map(sum, line["rewards"])) / sum(map(len, line["rewards"])) for line in rewarded]
    best = [sum(map(max, zip(*line["rewards"], strict=True))) / len(line["rewards"][0]) for line in rewarded]
    every = [line["step"] + 1 for line in lines]
    loss = [sum(line["loss"]) for line in lines]
    return [
        line_chart(
            "Reward of the previews",
            [
                Series("mean of the candidates", steps, mean, "faint a"),
                Series("mean, smoothed", steps, smoothed(mean), "a"),
                Series("best, smoothed", steps, smoothed(best), "b"),
            ],
        ),
        line_chart(
            "½ ‖gradient‖² on the latents",
            [
                Series("each step", every, loss, "faint a"),
                Series("smoothed", every, smoothed(loss), "a"),
            ],
            logarithmic=True,
        ),
    ]


def _stages(seconds: Mapping[str, float]) -> list[tuple[str, str, float]]:
    """(stage, seconds in words, share of the longest in percent), the longest first."""
    longest = max(seconds.values(), default=0.0) or 1.0
    ordered = sorted(seconds.items(), key=lambda item: -item[1])
    return [(stage, f"{value:.1f} s", 100 * value / longest) for stage, value in ordered]


def _final_reward(lines: Sequence[Mapping[str, Any]], tail: int = 20) -> str:
    """Mean reward over the last rewarded steps; empty for a run without a reward."""
    rewarded = [line["rewards"] for line in lines if line["rewards"] is not None][-tail:]
    flat = [value for rewards in rewarded for row in rewards for value in row]
    return f"{sum(flat) / len(flat):.3f}" if flat else ""


def _rows(values: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    rows: list[tuple[str, str]] = []
    for key, value in values.items():
        if isinstance(value, Mapping):
            rows += _rows(value, f"{prefix}{key}.")
        elif isinstance(value, list):
            rows.append((prefix + key, ", ".join(str(item) for item in value)))
        else:
            rows.append((prefix + key, "—" if value is None or value == "" else str(value)))
    return rows
