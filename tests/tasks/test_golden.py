"""Short runs with the packaged models, against what they were when the defaults were chosen.

Equal on one machine to the bit; on others up to rounding, which few steps do not let grow far. Where a change of
behaviour is meant, write the figures anew: `python tests/tasks/test_golden.py`.
"""

from __future__ import annotations

import io
import json
import tempfile
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from rewardsds.tasks.run import run
from rewardsds.tasks.settings import DistillationSettings, TextTo3DSettings, TextToImageSettings

GOLDEN = Path(__file__).parent / "golden.json"
COMMON: dict[str, Any] = {"device": "cpu", "threads": 1, "candidate_previews": 0, "previews_every": 0}
RUNS: dict[str, DistillationSettings] = {
    "image": TextToImageSettings(prompt="a green apple and a black backpack", steps=6, seed=1, **COMMON),
    "image, plain SDS": TextToImageSettings(
        prompt="a white car and a red sheep", steps=4, weighting="none", **COMMON
    ),
    "3d": TextTo3DSettings(
        prompt="a penguin with a brown bag in the snow", steps=3, video_frames=2, video_size=32, **COMMON
    ),
    "3d, NeRF": TextTo3DSettings(
        prompt="a red cube", backbone="nerf", steps=2, video_frames=2, video_size=32, **COMMON
    ),
}


def trajectory(settings: DistillationSettings) -> list[dict[str, Any]]:
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.delenv("REWARDSDS_TOYBOX", raising=False)
        out = Path(folder) / "run"
        run(settings.model_copy(update={"out": out}), console=Console(file=io.StringIO()))
        lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    kept = ("timesteps", "rewards", "weights", "gradient_norm", "network_evaluations")
    return [{key: line[key] for key in kept} for line in lines]


@pytest.mark.parametrize("name", RUNS)
def test_runs_go_the_way_they_went(name: str):
    golden, found = json.loads(GOLDEN.read_text())[name], trajectory(RUNS[name])
    assert len(found) == len(golden)
    for line, expected in zip(found, golden):
        for exact in ("timesteps", "weights", "network_evaluations"):
            assert line[exact] == expected[exact]
        assert line["gradient_norm"] == pytest.approx(expected["gradient_norm"], rel=1e-2)
        if expected["rewards"] is None:
            assert line["rewards"] is None
        else:
            for row, wanted in zip(line["rewards"], expected["rewards"], strict=True):
                assert row == pytest.approx(wanted, abs=2e-3)


if __name__ == "__main__":
    GOLDEN.write_text(
        json.dumps({name: trajectory(settings) for name, settings in RUNS.items()}, indent=1) + "\n"
    )
