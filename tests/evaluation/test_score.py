"""Whole sheets: means by hand, what is left out of them, and the command."""

from __future__ import annotations

import csv
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from painted import paint

from rewardsds.cli import Score, main
from rewardsds.errors import SettingsError
from rewardsds.evaluation import score as module
from rewardsds.evaluation.metrics import metric_info
from rewardsds.evaluation.score import score
from rewardsds.evaluation.settings import DEFAULT_METRICS, VIEWS
from rewardsds.evaluation.statistics import interval_of_mean

ROOT = Path(__file__).parents[2]


@pytest.fixture
def two(redness: str) -> list[Path]:
    """Folders ours and rival: a red apple from two seeds, and a green car; of one colour each."""
    for folder, reds in {"ours": (255, 153, 51), "rival": (102, 0, 51)}.items():
        for name, red in zip(("a_red_apple_1", "a_red_apple_2", "a_green_car_1"), reds):
            paint(Path(folder) / f"{name}.png", red)
    return [Path("ours"), Path("rival")]


def test_seeds_are_averaged_before_prompts(two: list[Path]) -> None:
    """ours: apples 1.0 and 0.6, car 0.2 → (0.8 + 0.2) / 2; rival: apples 0.4 and 0, car 0.2 → 0.2 of both."""
    sheet = score(two, ["hand:red"])
    ours, rival = (sheet.groups[name]["hand:red"] for name in ("ours", "rival"))
    assert ours.estimate is not None
    assert ours.estimate == pytest.approx(interval_of_mean([0.8, 0.2]), abs=1e-6)
    assert (ours.n, ours.of, ours.optimised) == (3, 3, False)
    assert rival.estimate == pytest.approx((0.2, 0.2, 0.2), abs=1e-6)
    assert sheet.is_whole
    lines = sheet.to_markdown().splitlines()
    assert lines[:4] == [
        "| group | entries | hand:red ↑ |",
        "| --- | --- | --- |",
        "| ours | 3 | 0.500 (0.200 to 0.800) |",
        "| rival | 3 | 0.200 |",
    ]
    assert "- its prompt was read from its name (6 entries)" in lines


ROUNDING = """
import torch

def tf32(images, prompts):
    return images.new_full(images.shape[:2], float(torch.backends.cudnn.allow_tf32))
"""


def test_metrics_convolve_in_float32(two: list[Path]) -> None:
    """TF32, which GPUs take for convolutions unless told otherwise, has no more digits than float16."""
    Path("rounding.py").write_text(ROUNDING)
    before = torch.backends.cudnn.allow_tf32
    sheet = score(two, ["rounding:tf32"])
    assert {row.answers["rounding:tf32"].value for row in sheet.rows} == {0.0}
    assert torch.backends.cudnn.allow_tf32 is before


def test_a_picture_that_is_missing_is_no_zero(two: list[Path]) -> None:
    names = {
        "a_red_apple_1.png": "a red apple",
        "a_red_apple_2.png": "a red apple",
        "a_green_car_1.png": "a green car",
    }
    Path("p.json").write_text(json.dumps({**names, "a_black_car_1.png": "a black car"}))
    (two[0] / "a_red_apple_2.png").write_bytes(b"torn")
    sheet = score(two[:1], ["hand:red"], prompts=Path("p.json"))
    mean = sheet.groups["ours"]["hand:red"]
    assert mean.estimate is not None
    assert mean.estimate.value == pytest.approx((1.0 + 0.2) / 2)
    assert (mean.n, mean.of) == (2, 4)
    assert not sheet.is_whole
    assert {entry.source.name for entry in sheet.errors} == {"a_red_apple_2.png", "a_black_car_1.png"}
    text = sheet.to_markdown()
    assert "| ours | 4 | 0.600 (0.200 to 1.000), 2 of 4 |" in text
    assert "- ours/a_black_car_1.png: no such picture, and p.json names it" in text
    entries = {entry["name"]: entry for entry in sheet.to_dict()["entries"]}
    gone = entries["ours/a_black_car_1.png"]
    assert (gone["scores"], gone["prompt"]) == ({"hand:red": None}, "a black car")
    assert gone["error"] == "no such picture, and p.json names it"


def test_nothing_to_score_is_a_table_of_gaps(two: list[Path]) -> None:
    Path("p.json").write_text(json.dumps({"b.png": "a dog"}))
    Path("none").mkdir()
    sheet = score([Path("none")], ["hand:red", "judge"], prompts=Path("p.json"))
    assert "| none | 1 | – | – |" in sheet.to_markdown()
    assert sheet.to_dict()["groups"]["none"]["judge"] == {
        "mean": None, "interval": None, "n": 0, "of": 1, "optimised": False,
    }  # fmt: skip


def test_a_metric_that_fails_leaves_the_others(two: list[Path]) -> None:
    paint(two[0] / "a_wide_dog.png", 255, (24, 16))
    sheet = score(two, ["./gone/model.pt", "hand:red", "hand:squares_only"])
    assert list(sheet.failed) == ["./gone/model.pt", "hand:squares_only"]
    assert "only squares" in sheet.failed["hand:squares_only"]
    assert "failed on 1 of 7 entries" in sheet.failed["hand:squares_only"]
    groups = sheet.groups["ours"]
    assert groups["./gone/model.pt"].estimate is None
    assert (groups["hand:red"].n, groups["hand:squares_only"].n) == (4, 3)
    assert not sheet.is_whole
    text = sheet.to_markdown()
    assert "| rival | 3 | – | 0.200 | 0.200 |" in text
    assert "- ./gone/model.pt: no reward at" in text
    assert "failed" in sheet.to_dict()["metrics"]["./gone/model.pt"]
    assert "failed" not in sheet.to_dict()["metrics"]["hand:red"]


def test_metrics_of_one_title_are_shown_by_their_names(two: list[Path], tiny_clip_folder: Path) -> None:
    shutil.copytree(tiny_clip_folder, "more/clip")
    sheet = score(two, [str(tiny_clip_folder), "more/clip"])
    assert [info.title for info in sheet.metrics] == [str(tiny_clip_folder), "more/clip"]
    assert [info.scale for info in sheet.metrics] == [100, 100]


def test_what_a_metric_cannot_tell_is_a_note_and_no_failure(two: list[Path]) -> None:
    paint(two[0] / "a_red_dragon.png", 255)
    sheet = score(two[:1], ["judge", "reprojection-error"])
    assert sheet.is_whole
    assert sheet.groups["ours"]["judge"].n == 3
    text = sheet.to_markdown()
    assert "- Judge finds: not told of 1 of 4 entries: the toybox does not know: dragon" in text
    assert "- Reprojection error: not told of 4 of 4 entries: only of 3D runs" in text
    [dragon] = [entry for entry in sheet.to_dict()["entries"] if "dragon" in entry["name"]]
    assert dragon["notes"]["judge"] == "the toybox does not know: dragon"


def test_many_pictures_are_scored_in_parts_with_the_same_result(
    two: list[Path],
    tiny_clip_folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    metrics = ["hand:red", f"r-precision:{tiny_clip_folder}"]
    whole = score(two, metrics)
    monkeypatch.setattr(module, "PICTURES_AT_ONCE", 2)
    capsys.readouterr()
    assert score(two, metrics).to_dict() == whole.to_dict()
    assert capsys.readouterr().err.splitlines() == [f"scored {count} of 6" for count in (2, 4, 6)]
    monkeypatch.setattr(module, "BYTES_AT_ONCE", 1)
    assert score(two, metrics).to_dict() == whole.to_dict()


def test_distractors_can_only_lower_the_precision(two: list[Path], tiny_clip_folder: Path) -> None:
    name = f"r-precision:{tiny_clip_folder}"

    def mean(*paths: Path, distractors: tuple[str, ...] = ()) -> float | None:
        found = score(paths, [name], distractors=distractors).groups[str(paths[0])][name].estimate
        return None if found is None else found.value

    one = Path("a_red_apple_1.png")
    shutil.copy(two[0] / one, one)
    assert mean(one) is None
    found = mean(one, distractors=("the black backpack",))
    assert found in (0.0, 1.0)
    assert mean(one, distractors=("the black backpack", "A  RED apple")) == found


@pytest.mark.parametrize(
    "metrics, options, told",
    [
        ([], {}, "no metric is named"),
        (["judge", "judge"], {}, "the metric judge is named twice"),
        ([""], {}, "a metric has no name"),
        (["judge"], {"views": 0}, "views is 0: expected 1 to 360"),
        (["judge"], {"view_kind": "below"}, "expected random or even"),
        (["judge"], {"size": 4}, "size is 4"),
        (["judge"], {"seed": -1}, "seed is -1"),
        (["judge"], {"device": "abacus"}, "expected auto, cpu, cuda or cuda:N"),
    ],
)
def test_what_cannot_be_asked_for(metrics: list[str], options: Any, told: str, two: list[Path]) -> None:
    with pytest.raises(SettingsError, match=told):
        score(two, metrics, **options)


# --- runs ---------------------------------------------------------------------------------------------------


def test_the_reward_of_a_run_is_marked(study: Path, tiny_clip_folder: Path) -> None:
    clip, ranked = str(tiny_clip_folder), f"r-precision:{tiny_clip_folder}"
    sheet = score([study], [clip, ranked, "judge", "reprojection-error"], views=2)
    marks = {group: [mean.optimised for mean in means.values()] for group, means in sheet.groups.items()}
    assert marks == {"plain": [False] * 4, "weighted": [True, True, False, False]}
    plain, weighted = sheet.to_markdown().splitlines()[2:4]
    assert "†" not in plain
    assert weighted.count("†") == 2
    assert "- † The runs, or some of them, were optimised by this" in sheet.to_markdown()
    optimised = {entry["group"]: entry["optimised"] for entry in sheet.to_dict()["entries"]}
    assert optimised == {"plain": [], "weighted": [clip, ranked]}
    assert sheet.to_dict()["groups"]["weighted"][clip]["optimised"] is True
    errors = sheet.groups["plain"]["reprojection-error"]
    assert (errors.n, errors.of) == (1, 6)  # five are pictures


def test_toybox_rewards_on_other_priors_are_told(study: Path, two: list[Path]) -> None:
    note = "the toybox's, which have seen its toys alone"
    assert note in score([study / "plain/edit"], ["aesthetic"]).to_markdown()
    assert note not in score([study / "plain/edit"], ["judge"]).to_markdown()
    assert note not in score(two[:1], ["aesthetic"]).to_markdown()


# --- the command --------------------------------------------------------------------------------------------


def test_the_command_writes_the_same_bytes_twice(two: list[Path], capsys: pytest.CaptureFixture[str]) -> None:
    call = ["score", "ours", "rival", "--metrics", "hand:red", "judge", "--out"]
    files = [Path(f"sheet.{ending}") for ending in ("json", "csv", "md")]
    assert main([*call, *map(str, files)]) == 0
    table = capsys.readouterr().out
    assert table == files[2].read_text(encoding="utf-8")
    first = [file.read_bytes() for file in files]

    assert main([*call, *map(str, files)]) == 2
    assert "--force" in capsys.readouterr().err
    assert main([*call, *map(str, files), "--force"]) == 0
    assert [file.read_bytes() for file in files] == first

    sheet = json.loads(files[0].read_text(encoding="utf-8"))
    assert list(sheet) == ["version", "metrics", "groups", "entries"]
    info = metric_info("judge")
    assert sheet["metrics"]["judge"] == {
        "title": info.title, "of": "pictures", "higher_is_better": True, "unit": "%", "digits": 1, "scale": 100,
    }  # fmt: skip
    assert sheet["groups"]["ours"]["hand:red"]["mean"] == pytest.approx(0.5)
    assert sheet["entries"][0]["scores"]["hand:red"] == pytest.approx(0.2)
    with files[1].open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [row["name"] for row in rows][:2] == ["ours/a_green_car_1.png", "ours/a_red_apple_1.png"]
    assert float(rows[1]["hand:red"]) == 1.0
    assert (rows[1]["prompt"], rows[1]["seed"], rows[1]["error"]) == ("a red apple", "", "")


def test_the_command_ends_with_1_after_everything_was_written(
    two: list[Path], capsys: pytest.CaptureFixture[str]
) -> None:
    paint(two[0] / "00001.png", 9)
    assert main(["score", "ours", "--metrics", "hand:red", "gone/model.pt", "--out", "s.csv"]) == 1
    told = capsys.readouterr()
    assert "| ours | 4 | 0.500 (0.200 to 0.800), 3 of 4 | – |" in told.out
    assert "- ours/00001.png: its name says no prompt" in told.out
    assert told.err == ""
    assert len(Path("s.csv").read_text().splitlines()) == 5


def test_the_commands_defaults_are_those_in_code() -> None:
    """It names them itself, since it must not import what is heavy."""
    assert (Score().metrics, Score().views) == (DEFAULT_METRICS, VIEWS)


@pytest.mark.parametrize(
    "arguments, told",
    [
        ([], "no PATH is given"),
        (["gone"], "no picture, folder or run gone"),
        (["ours", "--out", "s.xlsx"], "ends in .json, .csv, .md"),
        (["ours", "--metrics", "judge", "judge"], "the metric judge is named twice"),
        (["ours", "--metrics", "clip + aesthetic"], "give its parts, clip, aesthetic"),
        (["ours", "--views", "none"], "--views"),
        (["ours", "--view-kind", "below"], "below"),
        (["ours", "--prompts", "gone.txt"], "no file of prompts gone.txt"),
        (["ours", "--distractors", "coco"], "no prompts in 'coco'"),
        (["ours", "--group", "a", "b"], "2 groups are named for 1 paths"),
        (["ours", "--device", "tpu"], "expected auto, cpu, cuda or cuda:N"),
    ],
)
def test_wrong_usage_is_told_before_any_model_is_loaded(
    arguments: list[str], told: str, two: list[Path], capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    def never(*_: object, **__: object) -> None:
        raise AssertionError("a model was loaded")

    monkeypatch.setattr(module, "load_metric", never)
    assert main(["score", *arguments]) == 2
    captured = capsys.readouterr()
    assert told in captured.err
    assert captured.err.startswith("rewardsds: error: ")
    assert captured.err.count("\n") == 1
    assert captured.out == ""


def test_a_real_process_scores_runs_of_every_task(study: Path, tmp_path: Path) -> None:
    arguments = [
        "score",
        str(study),
        "--metrics",
        "judge",
        "reprojection-error",
        "--views",
        "2",
        "--out",
        "s.json",
    ]
    ended = subprocess.run(
        [sys.executable, "-m", "rewardsds", *arguments],
        cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(ROOT / "src")}, capture_output=True, text=True,
    )  # fmt: skip
    assert ended.returncode == 0, ended.stderr
    assert ended.stderr == ""
    assert ended.stdout.startswith("| group | entries | Judge finds ↑ | Reprojection error ↓ |\n")
    assert len(json.loads((tmp_path / "s.json").read_text())["entries"]) == 9
