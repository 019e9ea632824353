"""A real comparison on the toybox, from its plan to its report: what it makes, measures, says, and leaves alone."""

from __future__ import annotations

import base64
import csv
import io
import json
import subprocess
import sys
import threading
import weakref
from html.parser import HTMLParser
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from rich.console import Console

from rewardsds.cli import main
from rewardsds.errors import RewardsdsError, RunFolderError, SettingsError
from rewardsds.evaluation.compare import compare
from rewardsds.evaluation.costs import Cost
from rewardsds.evaluation.plan import read_plan
from rewardsds.rewards.grader import ASPECTS
from rewardsds.rewards.load import load_reward
from rewardsds.runs.folder import RunFolder
from rewardsds.scenes.pictures import read_whole_picture

PLAN = """
title: Small things
prompts: [a red cube, a green apple]
seeds: 2
settings: {steps: 3}
methods:
  SDS: {weighting: none}
  RewardSDS: {candidates: 2, reward: clip}
  picked: {weighting: none, best_of: RewardSDS, picked_by: aesthetic}
  sampling: {sampling_steps: 3}
metrics: [clip, aesthetic, judge, r-precision, no-such/metric]
"""


def write_plan(folder: Path, text: str = PLAN) -> Path:
    path = folder / "small.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def stamps(folder: Path) -> dict[str, tuple[int, int]]:
    """Every file's time and size: what was written again has another."""
    return {
        str(path.relative_to(folder)): (path.stat().st_mtime_ns, path.stat().st_size)
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    """(plan's path, its folder, exit code) of a comparison that was made by the command."""
    folder = tmp_path_factory.mktemp("comparison")
    plan, out = write_plan(folder), folder / "out"
    code = main(["compare", str(plan), "--out", str(out), "--workers", "1"])
    return plan, out, code


def read(out: Path) -> dict:
    return json.loads((out / "comparison.json").read_text(encoding="utf-8"))


def cells(out: Path) -> list[dict[str, str]]:
    with (out / "comparison.csv").open(encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_every_method_prompt_and_seed_is_there(done):
    _, out, _ = done
    found = read(out)
    assert list(found["methods"]) == ["SDS", "RewardSDS", "picked", "sampling"]
    assert all((one["results"], one["of"]) == (4, 4) for one in found["methods"].values())
    assert {(row["prompt"], row["seed"]) for row in cells(out)} == {
        (prompt, seed) for prompt in ("a red cube", "a green apple") for seed in ("0", "1")
    }


def test_scores_are_those_of_the_pictures(done):
    _, out, _ = done
    clip = load_reward("clip", "cpu")
    for row in cells(out):
        picture, _ = read_whole_picture(out / row["result"] / row["picture"])
        expected = float(clip(picture[None, None, None], [row["prompt"]]))
        assert float(row["clip"]) == pytest.approx(expected, abs=1e-5)


def test_best_of_takes_what_its_reward_likes_best_and_costs_as_much_as_said(done):
    _, out, _ = done
    found = read(out)["methods"]
    count = found["picked"]["best_of"]
    own, other = found["picked"]["network_evaluations"], found["RewardSDS"]["network_evaluations"]
    each = own / count
    assert own <= other < own + each  # as many as RewardSDS' cost allows, and no more
    aesthetic = load_reward("aesthetic", "cpu")
    for row in cells(out):
        if row["method"] == "picked":
            folder = out / row["result"]
            rivals = [name for name in RunFolder(folder).read_results()["files"] if name.endswith(".png")]
            seed, prompt = int(row["seed"]), row["prompt"].replace(" ", "-")
            mine = [name for name in rivals if prompt in name
                    and seed * count <= int(Path(name).stem.split("_")[-1]) < (seed + 1) * count]  # fmt: skip
            assert len(mine) == count
            scores = {name: float(aesthetic(read_whole_picture(folder / name)[0][None, None, None], [""]))
                      for name in mine}  # fmt: skip
            assert scores[row["picture"]] == pytest.approx(max(scores.values()), abs=1e-5)


def test_metrics_that_steered_are_marked(done):
    _, out, _ = done
    found = read(out)["methods"]
    assert found["SDS"]["optimised"] == []
    assert found["RewardSDS"]["optimised"] == ["clip", "r-precision"]  # which ranks by the same model
    assert found["picked"]["optimised"] == ["aesthetic"]
    assert found["sampling"]["optimised"] == []


def test_a_metric_that_is_not_there_leaves_a_gap(done):
    _, out, code = done
    assert code == 1
    found = read(out)
    assert "no-such/metric" in found["metrics"]["no-such/metric"]["failed"]
    assert all(one["scores"]["no-such/metric"] is None for one in found["methods"].values())
    assert all(one["scores"]["clip"] is not None for one in found["methods"].values())
    assert "missing: no-such/metric" in (out / "comparison.md").read_text(encoding="utf-8")


def test_a_step_of_sampling_is_one_call_of_the_network(done):
    _, out, _ = done
    assert read(out)["methods"]["sampling"]["network_evaluations"] == 3 * 2  # both branches


def test_a_batch_makes_what_single_runs_make(done, tmp_path):
    plan_path, out, _ = done
    plan = read_plan(plan_path)
    row = next(row for row in cells(out) if row["method"] == "SDS" and row["seed"] == "1")
    settings = plan.settings_of(plan.methods["SDS"], prompt=row["prompt"], seed=1, out=tmp_path / "alone")
    from rewardsds.tasks.run import run

    run(settings)
    alone, _ = read_whole_picture(tmp_path / "alone" / "image.png")
    together, _ = read_whole_picture(out / row["result"] / row["picture"])
    assert float((alone - together).abs().max()) <= 2 / 255  # sums of a batch are rounded otherwise


class Page(HTMLParser):
    """What a page asks for, and its tables' cells."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.links: list[str] = []
        self.images = 0
        self.feed(text)

    def handle_starttag(self, tag: str, attrs) -> None:
        self.links += [value or "" for name, value in attrs if name in ("src", "href")]
        self.images += tag == "img"


def test_the_report_is_one_file(done):
    _, out, _ = done
    text = (out / "report.html").read_text(encoding="utf-8")
    page = Page(text)
    assert page.images == 2 * 4
    assert all(link.startswith("data:") for link in page.links)
    for expected in ("Small things", "RewardSDS", "a green apple", "CLIPScore", "no-such/metric"):
        assert expected in text


def is_shown(sheet: Path, picture: Path) -> bool:
    """Whether a picture stands somewhere in a contact sheet, at twice its size."""
    with Image.open(sheet) as whole, Image.open(picture) as part:
        pixels = np.asarray(whole.convert("RGB"))
        doubled = np.asarray(part.convert("RGB")).repeat(2, axis=0).repeat(2, axis=1)
    starts = [(y, row.tobytes().find(doubled[0].tobytes())) for y, row in enumerate(pixels)]
    places = [(y, start // 3) for y, start in starts if start >= 0]
    return any((pixels[y : y + 128, x : x + 128] == doubled).all() for y, x in places)


def test_the_contact_sheet_shows_every_result(done):
    _, out, _ = done
    for cell in cells(out):
        if cell["seed"] == "0":
            assert is_shown(out / "sheet.png", out / cell["result"] / cell["picture"]), cell["method"]


def test_again_takes_nothing_and_changes_nothing(done, capsys):
    plan, out, _ = done
    before = stamps(out)
    main(["compare", str(plan), "--out", str(out), "--workers", "1"])
    assert stamps(out) == before
    assert "all: 0 of" in capsys.readouterr().err


def test_a_changed_plan_makes_only_what_is_new(done, tmp_path):
    plan, out, _ = done
    before = {path: stamp for path, stamp in stamps(out).items() if path.startswith("runs")}
    more = write_plan(
        tmp_path, PLAN.replace("metrics:", "  another: {weighting: none, guidance_scale: 5}\nmetrics:")
    )
    assert main(["compare", str(more), "--out", str(out), "--workers", "1"]) == 1
    after = stamps(out)
    assert {path: after[path] for path in before} == before
    assert list(read(out)["methods"])[-1] == "another"
    main(["compare", str(plan), "--out", str(out), "--workers", "1"])  # as the other tests have it


def test_runs_of_another_comparison_are_taken_over(done, tmp_path, capsys):
    _, other, _ = done
    text = PLAN.replace(
        "  RewardSDS: {candidates: 2, reward: clip}\n", "  new: {weighting: none, guidance_scale: 4}\n"
    )
    text = text.replace("  SDS:", "  plain SDS:").replace("best_of: RewardSDS", "best_of: 2")
    plan, out = write_plan(tmp_path, text), tmp_path / "out"
    given = ["compare", str(plan), "--out", str(out), "--workers", "1", "--reuse", str(other.parent)]
    main([*given, "--dry-run"])
    assert "1 of 4 runs to be made" in (said := " ".join(capsys.readouterr().err.split()))
    assert "3 are taken over from other comparisons" in said
    assert not (out / "runs").exists()
    main(given)
    before, after = read(other)["methods"], read(out)["methods"]
    for ours, theirs in {"plain SDS": "SDS", "picked": "picked", "sampling": "sampling"}.items():
        for of in ("scores", "seconds", "network_evaluations", "results"):
            assert after[ours][of] == before[theirs][of]
    assert "1/1" in (said := capsys.readouterr().err)
    assert "new:" in said
    stamped = stamps(out)
    main(given)
    assert stamps(out) == stamped


def test_reuse_of_a_folder_that_is_not_there(tmp_path):
    with pytest.raises(SettingsError, match=r"reuse is .*nowhere: there is no such folder"):
        compare(write_plan(tmp_path), tmp_path / "out", reuse=[tmp_path / "nowhere"])


def test_a_dry_run_only_says_what_it_costs(tmp_path, capsys):
    plan = write_plan(tmp_path)
    assert main(["compare", str(plan), "--out", str(tmp_path / "out"), "--dry-run"]) == 0
    said = capsys.readouterr()
    assert not said.out
    assert not list((tmp_path / "out").glob("runs/*"))
    text = " ".join(said.err.split())
    assert (
        "SDS: 4 results, about 6 network evaluations a result" in text
    )  # 3 steps, both branches of the guidance
    assert "all: 4 of 4 runs to be made" in text


def test_a_run_that_fails_leaves_the_others(tmp_path):
    text = """
prompts: [a red cube]
settings: {steps: 2}
methods:
  SDS: {weighting: none}
  broken: {candidates: 2, reward: "nowhere:function"}
metrics: [judge]
"""
    figures, _ = compare(write_plan(tmp_path, text), tmp_path / "out", workers=1)
    assert figures is not None
    plain, broken = figures.columns
    assert (plain.made, broken.made) == (1, 0)
    assert broken.scores["judge"] is None
    (problem,) = figures.problems
    assert problem.startswith("broken: a red cube, seed 0: ")
    assert "nowhere" in problem


@pytest.mark.parametrize(
    "more, told",
    [
        ("metrics: [clipp]", "no metric 'clipp'"),
        ("metrics: [judge, clip + aesthetic]", "give its parts"),
        ("distractors: toybox:tset", "tset"),
        (
            "methods: {SDS: {weighting: none, best_of: 2, picked_by: judge}}",
            "picked_by of SDS: no reward 'judge'",
        ),
        ("methods: {SDS: {reward: clpi}}", "method SDS: no reward 'clpi'"),
        ("methods: {SDS: {best_off: 2}}", r"small.yaml: method SDS: .* best_off \(did you mean best_of\?\)"),
    ],
)
def test_names_are_looked_at_before_anything_is_made(tmp_path, more: str, told: str):
    text = f"prompts: [a red cube]\nsettings: {{steps: 2}}\n{more}\n"
    text += "" if "methods" in more else "methods: {SDS: {weighting: none}}\n"
    with pytest.raises(SettingsError, match=told.replace("+", "\\+")):
        compare(write_plan(tmp_path, text), tmp_path / "out")
    assert not list(tmp_path.glob("out/runs/*"))


def test_two_methods_that_are_the_same_make_it_once(tmp_path):
    text = "prompts: [a red cube]\nsettings: {steps: 2, candidates: 2}\nmetrics: [judge, clip]\n"
    text += "methods: {one: {reward: clip}, other: {reward: clip}}\n"
    figures, _ = compare(write_plan(tmp_path, text), tmp_path / "out", workers=1)
    assert figures is not None
    assert not figures.problems
    one, other = figures.columns
    assert one.scores["judge"] == other.scores["judge"]
    assert one.optimised == other.optimised == ("clip",)
    assert len(list(tmp_path.glob("out/runs/*/*/results.json"))) == 1


def test_nothing_to_report(tmp_path, monkeypatch):
    from rewardsds.evaluation import execute

    monkeypatch.setattr(
        execute, "here", lambda units, root: (execute.Outcome(unit, 0.0, "no luck") for unit in units)
    )
    with pytest.raises(RewardsdsError, match=r"nothing to report: none of 1 results is finished .*no luck"):
        compare(
            write_plan(
                tmp_path, "prompts: [a red cube]\nsettings: {steps: 2}\nmethods: {SDS: {weighting: none}}"
            ),
            tmp_path / "out",
            workers=1,
        )


def test_one_process_at_a_time(tmp_path):
    (tmp_path / "out").mkdir()
    code = "import sys, time; from pathlib import Path; from rewardsds.runs.folder import locked\n"
    code += "with locked(Path(sys.argv[1])): print('held', flush=True); time.sleep(60)"
    other = subprocess.Popen([sys.executable, "-c", code, str(tmp_path / "out")], stdout=subprocess.PIPE)
    try:
        assert other.stdout is not None
        other.stdout.readline()
        with pytest.raises(RunFolderError, match="in use by another process"):
            compare(write_plan(tmp_path), tmp_path / "out")
    finally:
        other.kill()
        other.wait()


def test_ray_and_workers_exclude_each_other(tmp_path):
    with pytest.raises(SettingsError, match="give one of them"):
        compare(write_plan(tmp_path), tmp_path / "out", workers=2, ray="local")


SHORT = "prompts: [a red cube]\nsettings: {steps: 2}\nmethods: {SDS: {weighting: none}}\nmetrics: [judge]\n"


@pytest.mark.parametrize(
    "plan",
    [
        SHORT.replace("weighting", "wieghting"),
        SHORT.replace("judge", "jugde"),
        SHORT.replace("a red cube", ""),
        "task: edit\nprompts: toybox-edits:2\nmethods: {DDS: {wieghting: none}}",
    ],
)
def test_a_mistake_in_a_plan_leaves_no_folder(tmp_path, plan: str):
    with pytest.raises(SettingsError):
        compare(write_plan(tmp_path, plan), tmp_path / "runs" / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["small.yaml"]


def test_only_an_empty_folder_or_a_comparisons_is_taken(tmp_path):
    (other := tmp_path / "other").mkdir()
    (other / "thesis.tex").write_text("years of work")
    (run := tmp_path / "run").mkdir()
    (run / "settings.yaml").write_text("task: image")
    plan = write_plan(tmp_path, SHORT)
    for folder, told in (
        (other, "holds no comparison, so it is left alone; choose another folder with --out"),
        (run, "holds no comparison, so it is left alone; choose another folder with --out"),
        (plan, "is a file, not a folder; choose another folder with --out"),
        (plan / "below", "cannot make the folder .*; choose another folder with --out"),
        (tmp_path / ("x" * 300), "cannot (use|make) the folder .*; choose another folder with --out"),
    ):
        with pytest.raises(RewardsdsError, match=told):
            compare(plan, folder)
    assert len(list(tmp_path.rglob("*"))) == 5
    (empty := tmp_path / "empty").mkdir()
    for _ in range(2):
        compare(plan, empty, dry_run=True)
    (empty / "notes.txt").write_text("mine")
    compare(plan, empty, dry_run=True)


def test_runs_of_several_machines_are_told_apart(tmp_path):
    text = SHORT.replace("[a red cube]", "[a red cube, a green apple, a blue car]") + "batch: 1\n"
    plan, out = write_plan(tmp_path, text), tmp_path / "out"
    figures, _ = compare(plan, out, workers=1)
    assert figures is not None
    (here,) = figures.machines
    assert figures.machines[here] == 3
    assert f"Machine: {here}." in (out / "report.html").read_text(encoding="utf-8")
    first, second, _ = (RunFolder(path.parent).results for path in sorted(out.glob("runs/*/*/results.json")))
    results = json.loads(first.read_text())
    first.write_text(json.dumps({**results, "hardware": {"processor": "Abacus", "cores": 10}}))
    results = json.loads(second.read_text())
    del results["hardware"]  # as earlier versions wrote them
    second.write_text(json.dumps(results))
    figures, _ = compare(plan, out, workers=1)
    assert figures is not None
    assert figures.machines == {here: 1, "Abacus, 10 cores": 1, "not recorded": 1}
    for page in ("report.html", "comparison.md"):
        text = (out / page).read_text(encoding="utf-8")
        assert "Several machines: " in text
        assert "Abacus, 10 cores (1 run)" in text
    assert read(out)["machines"] == figures.machines


def test_rewards_that_were_left_out_are_told(tmp_path):
    plan, out = write_plan(tmp_path, SHORT), tmp_path / "out"
    figures, _ = compare(plan, out, workers=1)
    assert figures is not None
    assert figures.unsteered == read(out)["problems"] == []
    file = min(out.glob("runs/*/*/results.json"))
    results = json.loads(file.read_text())
    file.write_text(json.dumps({**results, "rewards_left_out": {"moody": 1}}))
    figures, _ = compare(plan, out, workers=1)
    assert figures is not None
    name = figures.columns[0].name
    told = f"{name}: the reward moody failed and was left out in 1 of {results['steps']} steps"
    assert read(out)["problems"] == [told]
    for page in ("report.html", "comparison.md"):
        assert told in (out / page).read_text(encoding="utf-8")


@pytest.mark.parametrize(
    "said, gpus, recorded",
    [("cpu", 1, "cpu"), ("auto", 1, "cuda"), ("auto", 0, "cpu"), ("cuda:1", 2, "cuda:1"), ("cuda:1", 1, "cuda"),
     ("cuda", 0, "cpu")],
)  # fmt: skip
def test_the_machine_is_recorded_by_the_device_of_the_runs(
    tmp_path, monkeypatch, said: str, gpus: int, recorded: str
):
    from rewardsds.evaluation import compare as module

    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpus > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
    monkeypatch.setattr(module, "machine_record", lambda device: {"device": device})
    monkeypatch.setattr(module, "measure", lambda unit: Cost(1.0, 1.0))
    plan = write_plan(tmp_path, SHORT.replace("steps: 2", f"steps: 2, device: '{said}'"))
    comparison = module.Comparison(read_plan(plan), tmp_path, Console(file=io.StringIO()))
    comparison.lay_out()
    assert json.loads((tmp_path / module.COSTS).read_text())["hardware"] == {"device": recorded}


@pytest.mark.parametrize("fails", [False, True])
def test_what_was_measured_leaves_no_gpu_memory_taken(tmp_path, monkeypatch, fails: bool):
    from rewardsds.evaluation import compare as module

    class Model:
        pass

    models: list[Any] = []
    gone: list[bool] = []

    def measure(unit: Any) -> Cost:
        model: Any = Model()
        model.itself = model
        models.append(weakref.ref(model))
        if fails:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return Cost(1.0, 1.0)

    monkeypatch.setattr(module, "measure", measure)
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: gone.append(models[-1]() is None))
    comparison = module.Comparison(
        read_plan(write_plan(tmp_path, SHORT)), tmp_path, Console(file=io.StringIO())
    )
    assert comparison.lay_out() == {"SDS": "CUDA out of memory" if fails else Cost(1.0, 1.0)}
    assert gone == [True]


def test_what_picks_is_loaded_in_float32(tmp_path, monkeypatch):
    from rewardsds.evaluation import compare as module

    asked: list[Any] = []

    def load(name: str, device: str, dtype: Any = None, **options: Any) -> Any:
        asked.append((name, device, dtype))

        def reward(images: torch.Tensor, prompts: Any) -> torch.Tensor:
            asked.append(torch.backends.cudnn.allow_tf32)
            return images.mean((2, 3, 4, 5))

        return reward

    monkeypatch.setattr(module, "load_reward", load)
    text = SHORT.replace("weighting: none", "weighting: none, best_of: 2, picked_by: clip")
    compare(write_plan(tmp_path, text), tmp_path / "out", workers=1)
    assert asked == [("clip", "cpu", torch.float32), False]
    assert torch.backends.cudnn.allow_tf32


class Grades(BaseHTTPRequestHandler):
    """An endpoint that grades a picture by its green, and refuses to say anything of apples."""

    def do_POST(self) -> None:
        request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        text, picture = request["messages"][1]["content"]
        with Image.open(io.BytesIO(base64.b64decode(picture["image_url"]["url"].partition(",")[2]))) as image:
            green = float(np.asarray(image.convert("RGB"))[..., 1].mean()) / 25.5
        said = json.dumps({**dict.fromkeys(ASPECTS, 5), "overall_score": green})
        content = "I would rather not" if "apple" in text["text"] else said
        answer = {"id": "1", "object": "chat.completion", "created": 0, "model": "m",
                  "choices": [{"index": 0, "finish_reason": "stop",
                               "message": {"role": "assistant", "content": content}}]}  # fmt: skip
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.end_headers()
        self.wfile.write(json.dumps(answer).encode())

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def grades(monkeypatch):
    pytest.importorskip("openai")
    monkeypatch.setenv("OPENAI_API_KEY", "any")
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)
    server = ThreadingHTTPServer(("127.0.0.1", 0), Grades)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


def green_of(row: dict[str, str], out: Path) -> float:
    with Image.open(out / row["result"] / row["picture"]) as image:
        return float(np.asarray(image.convert("RGB"))[..., 1].mean()) / 25.5


def test_a_plan_says_how_its_grader_is_asked(tmp_path, grades):
    text = f"""
prompts: [a red cube, a green apple, a blue car]
settings: {{steps: 2}}
methods:
  SDS: {{weighting: none}}
  picked: {{weighting: none, best_of: 3, picked_by: "grader:m"}}
grader: {{url: "http://127.0.0.1:{grades.server_port}/v1", retries: 0, cache: {tmp_path / "cache"}}}
metrics: [judge, "grader:m"]
"""
    plan, out = write_plan(tmp_path, text), tmp_path / "out"
    figures, _ = compare(plan, out, workers=1)
    assert figures is not None
    found = {(row["method"], row["prompt"]): row for row in cells(out)}
    for (method, prompt), row in found.items():
        if "apple" in prompt:  # a gap of this cell alone
            assert row["grader:m"] == ""
        else:
            assert float(row["grader:m"]) == pytest.approx(green_of(row, out), abs=0.01), (method, prompt)
    picked = found["picked", "a red cube"]
    rivals = list((out / picked["result"]).glob("*red-cube*.png"))
    assert len(rivals) == 3
    greenest = max(green_of({**picked, "picture": path.name}, out) for path in rivals)
    assert green_of(picked, out) == pytest.approx(greenest)
    refused, nothing = figures.problems
    assert refused.startswith("grader:m: failed on 1 of 5 results: ")
    assert "I would rather not" in refused
    assert nothing.startswith("picked: a green apple, seed 0: nothing could be picked: ")
    assert not figures.gaps


def test_a_grader_that_is_away_is_given_up(tmp_path, grades):
    grades.shutdown()
    grades.server_close()
    text = SHORT.replace("[judge]", '[judge, "grader:m"]') + "seeds: 40\nbatch: 40\n"
    text += (
        f'grader: {{url: "http://127.0.0.1:{grades.server_port}/v1", retries: 0, cache: {tmp_path / "c"}}}\n'
    )
    figures, _ = compare(write_plan(tmp_path, text), tmp_path / "out", workers=1)
    assert figures is not None
    (problem,) = figures.problems
    assert problem.startswith("grader:m: ")
    assert "cannot be reached" in problem
    assert list(figures.gaps) == ["grader:m"]


def test_edits_are_shown_beside_what_was_given(tmp_path):
    text = """
task: edit
prompts: toybox-edits:2
settings: {steps: 2, candidates: 2}
methods:
  DDS: {weighting: none}
  RewardDDS: {}
metrics: [judge]
"""
    plan, out = write_plan(tmp_path, text), tmp_path / "out"
    compare(plan, out, workers=1)
    assert Page((out / "report.html").read_text(encoding="utf-8")).images == 2 * 3
    given = [path for path in (out / "runs").rglob("before.png") if "rewarddds" in str(path)]
    assert len(given) == 2
    for picture in [*given, *(path.with_name("image.png") for path in given)]:
        assert is_shown(out / "sheet.png", picture)
