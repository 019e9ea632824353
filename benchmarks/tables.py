"""The tables in docs/results.md and docs/reproduction.md, from the figures in benchmarks/results.

    python benchmarks/tables.py            # writes them into the pages again
    python benchmarks/tables.py --check    # exit code 1 where a page says something else

A table stands between <!-- NAME --> and <!-- end -->; one named "plan NAME" is that of results/plans/NAME.json, the
`comparison.json` of a plan.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rewardsds.evaluation.metrics import MetricInfo, metric_info
from rewardsds.evaluation.results import NOT_RECORDED, machine_name
from rewardsds.evaluation.statistics import Estimate
from rewardsds.evaluation.tables import DAGGER, GAP, cell, heading, markdown, number

RESULTS = Path(__file__).parent / "results"
PAGES = [Path(__file__).parents[1] / "docs" / name for name in ("results.md", "reproduction.md")]


def losses() -> list[str]:
    heads = [
        "loss",
        "toys found, plain → weighted",
        "difference, points",
        "CLIP (optimised)",
        "aesthetic",
        "ImageReward",
    ]
    rows = []
    for path in sorted(RESULTS.glob("reward_gain_*.json")):
        record = _read(path.name)
        gained = record["weighted against"]["plain"]
        found = gained["judge finds"]
        cells = [
            f"`{record['settings']['weighted']['loss']}`",
            f"{100 * found['rival']:.1f}% → {100 * found['ours']:.1f}%",
            _difference(found, 100, 1),
            *(_difference(gained[name], 1, 3) for name in ("clip (optimised)", "aesthetic", "image-reward")),
        ]
        rows.append(cells)
    return markdown(heads, rows)


def edits() -> list[str]:
    record = _read("edits.json")
    heads = ["48 edits", "DDS", "RewardDDS", "difference"]
    rows = []
    for name, row in record["rewarddds against dds"].items():
        scale, digits = (100, 1) if name.startswith("judge") else (1, 3 if "reward" in name else 1)
        unit = "%" if scale == 100 else ""
        values = (f"{scale * row[key]:.{digits}f}{unit}" for key in ("rival", "ours"))
        rows.append([name, *values, _difference(row, scale, digits)])
    return markdown(heads, rows)


def weightings() -> list[str]:
    record = _read("weightings.json")
    heads = [
        "",
        "network evaluations",
        "reward",
        "gain",
        "judge",
        "gain",
        "judge's gain per 1000 evaluations",
    ]
    rows = []
    for name, marks in record["methods"].items():
        end = marks[-1]
        cells = [
            name,
            f"{end['network evaluations']:.0f}",
            f"{end['reward']['ours']:.3f}",
            _difference(end["reward"], 1, 3),
            f"{end['judge']['ours']:.3f}",
            _difference(end["judge"], 1, 3),
            f"{end['judge gained per 1000 network evaluations']:.3f}".replace("-", "−"),
        ]
        rows.append(cells)
    return markdown(heads, rows)


def vsd_memory() -> list[str]:
    record = _read("vsd_memory.json")["bytes by particles"]
    heads = ["particles", "UNet", "estimator", "its optimiser", "peak of the process, `sds`", "`vsd`"]
    rows = []
    for particles, row in record.items():
        vsd = row["vsd"]
        values = (vsd["UNet"], vsd["estimator"], vsd["its moments"])
        peaks = (row["sds"]["peak of the process"], vsd["peak of the process"])
        sizes = [f"{value / 2**20:.1f} MiB" for value in values] + [
            f"{value / 2**20:.0f} MiB" for value in peaks
        ]
        rows.append([particles, *sizes])
    return markdown(heads, rows)


def levers() -> list[str]:
    record = _read("reward_lever.json")["losses"]
    heads = ["loss", "spread", "alignment", "toys found by the reward, points"]
    rows = []
    for name, row in sorted(record.items(), key=lambda item: -item[1]["alignment"]["mean"]):
        gain = RESULTS / f"reward_gain_{name}.json"
        gained = "not measured"
        if gain.is_file():
            gained = _difference(_read(gain.name)["weighted against"]["plain"]["judge finds"], 100, 1)
        marks = (f"{row[what]['mean']:.2f}".replace("-", "−") for what in ("spread", "alignment"))
        rows.append([f"`{name}`", *marks, gained])
    return markdown(heads, rows)


def batch_throughput() -> list[str]:
    record = _read("batch_throughput.json")
    heads = ["16 prompts", "one batch", "single runs", "throughput", "of the steps alone"]
    rows = []
    names = {"none": "SDS", "best-worst": "RewardSDS"}
    for weighting, row in record["by weighting"].items():
        cells = [
            names.get(weighting, weighting),
            f"{row['one batch, seconds of the command']:.0f} s",
            f"{row['single runs, seconds of the commands']:.0f} s",
            f"{row['throughput of the batch over single runs']:.2f} ×",
            f"{row['the same of the steps alone']:.2f} ×",
        ]
        rows.append(cells)
    return markdown(heads, rows)


def cost_3d() -> list[str]:
    nerf, gaussians = _read("nerf.json"), _read("rasterizer_cost.json")
    heads = ["", "median", "fastest", "target"]
    rows = []
    for row in nerf["cases"][:2]:
        cells = f"{row['median_ms']:.0f} ms", f"{row['fastest_ms']:.0f} ms"
        target = f"{nerf['target_ms']} ms" if row["state"] == "learned" else ""
        rows.append([f"NeRF, {row['state']}", *cells, target])
    for row in gaussians["grid"]:
        if row["size"] == 64 and row["gaussians"] in (500, 4000, 16000):
            own = row["numba"]
            cells = f"{own['median_ms']:.0f} ms", f"{own['fastest_ms']:.0f} ms"
            target = "60 ms" if row["gaussians"] == 4000 else ""
            rows.append([f"{row['gaussians']:,} Gaussians", *cells, target])
    return markdown(heads, rows)


def exports() -> list[str]:
    heads = [
        "object",
        "seconds",
        "peak memory",
        "PSNR, mean of 10 views",
        "worst view",
        "opaque pixels, mean",
    ]
    rows = []
    for row in _read("export.json")["runs"]:
        cells = (
            f"{row['prompt']} ({row['backbone']})",
            f"{row['seconds']:.0f}",
            f"{row['peak_memory_mb']} MB",
            f"{row['psnr_mean_db']:.1f} dB",
            f"{row['psnr_worst_view_db']:.1f} dB",
            f"{row['psnr_of_opaque_pixels_db']:.1f} dB",
        )
        rows.append(cells)
    return markdown(heads, rows)


def real_sizes() -> list[str]:
    heads = [
        "prior",
        "",
        "N",
        "pictures in a call",
        "seconds a step",
        "network",
        "decoder",
        "reward",
        "peak memory",
        "machine",
    ]
    rows = []
    for path in sorted(RESULTS.glob("real_sizes_*.json")):
        record = _read(path.name)
        machine = record["hardware"].get("gpu", record["hardware"]["processor"])
        for row in record["rows"]:
            stages = row["seconds_by_stage"]
            cells = (
                row["prior"],
                row["precision"],
                str(row["candidates"]),
                "all" if record["chunk"] == "auto" else record["chunk"],
                *(f"{one:.3g}" for one in (row["seconds"], stages["predict"])),
                *(f"{stages[name]:.3g}" if name in stages else GAP for name in ("decode", "reward")),
                f"{row['peak_gib']:.1f} GiB",
                machine,
            )
            rows.append(cells)
    return markdown(heads, rows)


def reward_throughput() -> list[str]:
    record = _read("reward_throughput.json")
    heads = ["reward", "pictures a second", "one by one through PIL", ""]
    rows = []
    for row in record["rows"]:
        cells = f"{row['pictures_a_second']:.0f}", f"{row['by_pil']:.0f}", f"{row['times']:.1f} ×"
        rows.append([f"`{row['reward']}`", *cells])
    return markdown(heads, rows)


def objects() -> list[str]:
    return _objects("gain_3d_{}.json")


def other_objects() -> list[str]:
    """The same of prompts that the other table does not have; what it costs is there."""
    return _objects("gain_3d_{}_validation.json", without=("seconds", "network"))


def _objects(record: str, without: tuple[str, ...] = ()) -> list[str]:
    heads = ["", "", "SDS", "RewardSDS", "difference"]
    rows = []
    for backbone in ("gaussians", "nerf"):
        for name, row in _read(record.format(backbone))["weighted against plain"].items():
            if name.startswith(without):
                continue
            scale, digits = _shown_3d(name)
            unit = "%" if scale == 100 else ""
            values = (f"{scale * row[key]:,.{digits}f}{unit}".replace("-", "−") for key in ("rival", "ours"))
            is_cost = name.startswith(("seconds", "network"))
            more = f"{row['ours'] / row['rival']:.1f} ×" if is_cost else _difference(row, scale, digits)
            rows.append([backbone, name, *values, more])
    return markdown(heads, rows)


def consistency() -> list[str]:
    read = _read("consistency.json")
    rows = [
        [name, f"{row['rival']:.4f}", f"{row['ours']:.4f}", _difference(row, 1, 4)]
        for name, row in read["measures"].items()
    ]
    return markdown(["", read["rival"], read["ours"], "difference"], rows)


def _shown_3d(name: str) -> tuple[float, int]:
    """Scale and digits of a figure of an object."""
    if name.startswith(("judge", "back")):
        return 100, 1
    if name.startswith(("seconds", "network")):
        return 1, 0
    return 1, 4 if "error" in name else 3


def plan(name: str) -> list[str]:
    """Means of every method, and how the judge's differ from those of the method that each is compared with."""
    record = _read(f"plans/{name}.json")
    infos = [metric_info(metric) for metric, said in record["metrics"].items() if "failed" not in said]
    judge = next(info for info in infos if info.name == "judge")
    rivals = dict.fromkeys(said["against"] for said in record["methods"].values() if said["against"])
    against = (
        f"{judge.title} against {next(iter(rivals))}" if len(rivals) == 1 else f"{judge.title}, difference"
    )
    heads = ["method", *(heading(info) for info in infos), against, "network evaluations", "seconds"]
    rows = []
    for method, said in record["methods"].items():
        row = [method if said["results"] == said["of"] else f"{method} ({said['results']} of {said['of']})"]
        for info in infos:
            score = said["scores"][info.name]
            dagger = f" {DAGGER}" if info.name in said["optimised"] else ""
            row.append(GAP if score is None else number(score["value"], info) + dagger)
        found = said["differences"][judge.name]
        rival = f" against {said['against']}" if len(rivals) > 1 else ""
        row.append(GAP if found is None else _against(found["difference"], judge) + rival)
        row += [f"{said['network_evaluations']:,.0f}", f"{said['seconds']:.1f}"]
        rows.append(row)
    prompts, seeds = record["prompts"], len(record["seeds"])
    begun_on = record["hardware"]
    machines = record.get("machines") or [NOT_RECORDED]
    names = [machine_name(begun_on) if name == NOT_RECORDED else name for name in machines]
    made_on = "; ".join(dict.fromkeys(names))
    said = (
        f"{prompts} prompts × {seeds} seed{'s' if seeds > 1 else ''}, size {record['size']}; {made_on}, "
        f"{begun_on['date']}."
    )
    return [said, "", *markdown(heads, rows)]


def _against(difference: dict[str, float], info: MetricInfo) -> str:
    estimate = Estimate(**difference)
    text = cell(estimate, info, sign=True)
    return f"**{text}**" if estimate.leaves_out_zero else text


TABLES: dict[str, Callable[[], list[str]]] = {
    "losses": losses,
    "edits": edits,
    "weightings": weightings,
    "vsd memory": vsd_memory,
    "levers": levers,
    "batch throughput": batch_throughput,
    "object cost": cost_3d,
    "consistency": consistency,
    "exports": exports,
    "objects": objects,
    "other objects": other_objects,
    "real sizes": real_sizes,
    "reward throughput": reward_throughput,
}


def _read(name: str) -> dict[str, Any]:
    return json.loads((RESULTS / name).read_text(encoding="utf-8"))


def _difference(row: dict[str, Any], scale: float, digits: int) -> str:
    """+0.12 (0.02 to 0.22), bold where the interval leaves out zero."""
    difference, (low, high) = scale * row["difference"], (scale * value for value in row["interval"])
    text = f"{difference:+.{digits}f} ({low:.{digits}f} to {high:.{digits}f})".replace("-", "−")
    return f"**{text}**" if low > 0 or high < 0 else text


def page(text: str) -> str:
    """The page with its tables made again."""

    def table(match: re.Match[str]) -> str:
        kind, _, name = match[1].partition(" ")
        lines = plan(name) if kind == "plan" else TABLES[match[1]]()
        return f"<!-- {match[1]} -->\n" + "\n".join(lines) + "\n<!-- end -->"

    return re.sub(r"<!-- ([a-z0-9 -]+) -->\n.*?<!-- end -->", table, text, flags=re.DOTALL)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--check", action="store_true", help="write nothing, compare")
    options = parser.parse_args()
    stale = []
    for path in PAGES:
        text = path.read_text(encoding="utf-8")
        made = page(text)
        if made != text:
            stale.append(path.name)
            if not options.check:
                path.write_text(made, encoding="utf-8")
    if options.check and stale:
        sys.exit(f"{', '.join(stale)}: not the recorded figures; run python {Path(__file__).name}")


if __name__ == "__main__":
    main()
