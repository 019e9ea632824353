"""The chart of the rasteriser's cost in the documentation is that of the recorded figures."""

from __future__ import annotations

import json
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path

ROOT = Path(__file__).parents[1]
SVG = "{http://www.w3.org/2000/svg}"


def test_the_chart_is_that_of_the_recorded_figures(tmp_path: Path) -> None:
    command = [sys.executable, str(ROOT / "benchmarks" / "plot_cost.py"), "--out", str(tmp_path / "cost.svg")]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "cost.svg").read_bytes() == (ROOT / "docs" / "rasterizer_cost.svg").read_bytes()


def test_every_line_has_all_its_points() -> None:
    record = json.loads((ROOT / "benchmarks" / "results" / "rasterizer_cost.json").read_text("utf-8"))
    counts = {cell["gaussians"] for cell in record["grid"]}
    sizes = {cell["size"] for cell in record["grid"]}
    assert len(record["grid"]) == len(counts) * len(sizes) == 24
    root = ElementTree.parse(ROOT / "docs" / "rasterizer_cost.svg").getroot()
    lines = [line.attrib["points"].split() for line in root.iter(f"{SVG}polyline")]
    assert sorted(map(len, lines)) == [len(sizes)] * len(counts) + [len(counts)] * len(sizes)
