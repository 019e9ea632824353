"""Draws the cost of the Gaussian rasteriser, from the figures that `rasterizer_cost.py` recorded.

    python benchmarks/plot_cost.py [--record benchmarks/results/rasterizer_cost.json] [--out docs/rasterizer_cost.svg]

Two charts in one SVG file: over the number of Gaussians, a line a resolution, and over the resolution, a line a number
of Gaussians. Times are the fastest forward pass plus the fastest backward pass of all repeats, as other load on the
machine only ever adds to them.
"""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rewardsds.runs.charts import HEIGHT, WIDTH, Series, line_chart
from rewardsds.scenes.files import atomic_path

ROOT = Path(__file__).parents[1]
COLOURS = ("#4269d0", "#efb118", "#ff725c", "#6cc5b0", "#a463f2", "#9c6b4e")
HEAD, FOOT = 28, 30  # pixels above and below a chart, for its title and its legend

STYLE = """
text { font: 12px system-ui, sans-serif; fill: #333 } .title { font-size: 14px; font-weight: 600 }
.grid { stroke: #ddd; stroke-width: 1 } polyline { fill: none; stroke-width: 2 } .paper { fill: #fff }
@media (prefers-color-scheme: dark) { text { fill: #ddd } .grid { stroke: #444 } .paper { fill: #16181c } }
"""


def draw(record: Mapping[str, Any]) -> str:
    """The SVG file."""
    cells = {(cell["gaussians"], cell["size"]): cell["numba"]["fastest_parts_ms"] for cell in record["grid"]}
    counts, sizes = (sorted({key[axis] for key in cells}) for axis in (0, 1))
    views = record["grid"][0]["views"]
    title = f"{views} views, forward and backward, milliseconds ({record['kernel_threads']} threads)"
    charts = [
        (
            [(f"{size}²", counts, [cells[count, size] for count in counts]) for size in sizes],
            "Gaussians",
            "pixels",
        ),
        (
            [(f"{count:,}", sizes, [cells[count, size] for size in sizes]) for count in counts],
            "pixels a side",
            "Gaussians",
        ),
    ]  # lines, what is along x, what the lines are of
    each = HEAD + HEIGHT + FOOT
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {each * len(charts)}" '
        f'width="{WIDTH}" height="{each * len(charts)}"><style>{STYLE}{_line_styles()}</style>',
        '<rect class="paper" width="100%" height="100%"/>',
    ]
    for index, (lines, along, of) in enumerate(charts):
        parts.append(f'<g transform="translate(0 {index * each})">{_chart(title, lines, along, of)}</g>')
    return "\n".join([*parts, "</svg>"]) + "\n"


def _line_styles() -> str:
    return "".join(f".line{i} {{ stroke: {c} }} rect.line{i} {{ fill: {c} }}" for i, c in enumerate(COLOURS))


def _chart(
    title: str, lines: Sequence[tuple[str, Sequence[float], Sequence[float]]], along: str, of: str
) -> str:
    series = [Series(name, x, y, f"line{i}") for i, (name, x, y) in enumerate(lines)]
    figure = re.search(
        r"<svg.*?>(.*)</svg>", line_chart(title, series, logarithmic=True, x_label=along), re.S
    )
    assert figure is not None
    legend = [f'<text x="56" y="18">{of}:</text>']
    x = 74 + 7 * len(of)
    for i, (name, _, _) in enumerate(lines):
        legend.append(
            f'<rect class="line{i}" x="{x}" y="12" width="14" height="4"/><text x="{x + 18}" y="18">{name}</text>'
        )
        x += 28 + 7 * len(name)
    return (
        f'<text class="title" x="16" y="19">{title}</text>'
        f'<g transform="translate(0 {HEAD})">{figure[1]}</g>'
        f'<g transform="translate(0 {HEAD + HEIGHT})">{"".join(legend)}</g>'
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument(
        "--record", type=Path, default=ROOT / "benchmarks" / "results" / "rasterizer_cost.json"
    )
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "rasterizer_cost.svg")
    options = parser.parse_args()
    svg = draw(json.loads(options.record.read_text("utf-8")))
    with atomic_path(options.out) as temporary:
        temporary.write_text(svg, encoding="utf-8")


if __name__ == "__main__":
    main()
