"""The command: bad input is one line on standard error and an exit code, never a traceback."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from rewardsds import __version__
from rewardsds.cli import main
from rewardsds.scenes.export import write_video
from rewardsds.tasks import text_to_image

ROOT = Path(__file__).parents[1]


def run_command(*arguments: str, folder: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src"), "COLUMNS": "80", **variables}
    return subprocess.run(
        [sys.executable, "-m", "rewardsds", *arguments],
        cwd=folder, env=environment, capture_output=True, text=True,
    )  # fmt: skip


def one_line(text: str) -> str:
    lines = text.splitlines()
    assert len(lines) == 1, text
    assert lines[0].startswith("rewardsds: error: ")
    assert "Traceback" not in text
    return lines[0]


@pytest.mark.parametrize(
    "arguments, told",
    [
        ([], "no command"),
        (["paint", "a red cube"], "unknown command 'paint'"),
        (["image"], "PROMPT"),
        (["image", ""], "it is empty"),
        (["image", "x" * 10_000], "at most 2000 characters"),
        (["image", "a red cube", "--candidates", "1"], "needs at least 2"),
        (["image", "a red cube", "--candidates", "many"], "--candidates"),
        (["image", "a red cube", "--candidates"], "--candidates"),
        (["image", "a red cube", "--weighting", "worst"], "worst"),
        (["image", "a red cube", "--rollout-steps", "0"], "rollout_steps is 0"),
        (["image", "a red cube", "--reward-steps", "9999"], "the run has only"),
        (["image", "a red cube", "--reward-steps", "-1"], "reward_steps is -1"),
        (["image", "a red cube", "--sneed", "3"], "--sneed"),
        (["image", "a red cube", "--config", "nowhere.yaml"], "no settings file nowhere.yaml"),
        (["3d", "a red cube", "--camera.views", "0"], "views is 0"),
        (["3d", "a red cube", "--gaussians.max-gaussians", "1"], "below initial_gaussians"),
        (["3d", "a red cube", "--backbone", "voxels"], "voxels"),
        (["resume"], "RUN"),
        (["toybox"], "no toybox command"),
        (["toybox", "sell"], "unknown toybox command 'sell'"),
        (["toybox", "train", "--preset", "abacus"], "abacus"),
        (
            ["image", "a red cube", "--candidates", "many"],
            "--candidates is 'many': expected a whole number; see",
        ),
        (["image", "a red cube", "--threads", "many"], "--threads is 'many': expected None or INT; see"),
        (["image", "a red cube", "--seed"], "--seed needs a value; see"),
        (["3d", "a red cube", "--t-range-start", "1"], "--t-range-start needs 2 values; see"),
        (["3d"], "missing: PROMPT: What to make, in words; see `rewardsds 3d --help`"),
        (["edit", "a.png"], "missing: --source STR: What the picture shows, in words; --target STR: What"),
        (["settings", "imag"], "TASK is 'imag': expected 'image', '3d', 'edit'; see"),
        (["image", "a red cube", "--stepz", "3"], "unknown option --stepz (did you mean --steps?); see"),
        (["image", "--stepz=3", "a red cube"], "unknown option --stepz (did you mean --steps?); see"),
        (["image", "a red cube", "-steps", "3"], "unknown option -steps (did you mean --steps?); see"),
        (["image", "a", "cube", "--stepz", "3"], "unknown option --stepz (did you mean --steps?); see"),
        (["image", "--prompt", "a red cube"], "unknown option --prompt (did you mean PROMPT?); see"),
        (["image", "a red cube", "--xyzzy"], "unknown option --xyzzy; see `rewardsds image --help`"),
        (
            ["image", "a", "--sted", "3", "--ceed", "3"],
            "options --sted (did you mean --seed?), --ceed (did you",
        ),
        (["3d", "--cammera.view", "3", "a red cube"], "--cammera.view (did you mean --camera.views?)"),
        (["3d", "a red cube", "--max_gausians", "3"], "(did you mean --gaussians.max-gaussians?)"),
        (["3d", "a", "--background.augmentation"], "(did you mean --background.no-augmentation?)"),
        (["export", "run", "--too", "glb"], "unknown option --too (did you mean --to?)"),
        (["score", "--metriks", "clip"], "unknown option --metriks (did you mean --metrics?)"),
        (["resume", "a", "b"], "unexpected b; see `rewardsds resume --help`"),
        (
            ["image", "a red cube", "--steps", "3", "4"],
            "unexpected 4: a text of several words goes in quotes; see",
        ),
    ],
)
def test_wrong_usage(
    arguments: list[str], told: str, capsys: pytest.CaptureFixture[str], tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    assert main(arguments) == 2
    captured = capsys.readouterr()
    assert told in one_line(captured.err)
    assert captured.out == ""
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "typed, meant",
    [
        ("image a penguin with a red hat --steps 3", 'image "a penguin with a red hat" --steps 3'),
        ("3d --steps 3 a cat on a cat", '3d --steps 3 "a cat on a cat"'),
        ("image red red --reward red", 'image "red red" --reward red'),
        ("image a £5 hat", 'image "a £5 hat"'),
        ("image a $5 hat", "image 'a $5 hat'"),
        ("toybox show a red cube", 'toybox show "a red cube"'),
        (
            "edit my photo.png --source a dog --target a cat",
            'edit "my photo.png" --source "a dog" --target "a cat"',
        ),
    ],
)
def test_texts_without_quotes(typed: str, meant: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(typed.split()) == 2
    told = one_line(capsys.readouterr().err)
    assert told.endswith(f": a text of several words goes in quotes, as in `rewardsds {meant}`")


@pytest.mark.parametrize(
    "command", ["image", "3d", "edit", "export", "score", "compare", "toybox train", "models convert"]
)
def test_no_option_of_the_help_is_unknown(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*command.split(), "--help"]) == 0
    options = re.findall(r"^\W{1,4}(--[\w.-]+)", capsys.readouterr().out, re.MULTILINE)
    assert len(options) > 3
    assert main([*command.split(), *options, "--xyzzy"]) == 2
    assert "unknown option --xyzzy;" in one_line(capsys.readouterr().err)


@pytest.mark.parametrize("encoding", ["ascii", "utf-8", "cp1252"])
@pytest.mark.parametrize(
    "arguments",
    [["--stepz", "3"], ["--threads", "many"], ["--weighting", "worst"], ["--seed"], ["with", "a", "hat"]],
)
def test_messages_are_the_same_in_every_encoding(
    arguments: list[str], encoding: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main(["image", "a penguin", *arguments])
    ended = run_command(
        "image", "a penguin", *arguments, folder=tmp_path, PYTHONIOENCODING=encoding, COLUMNS="40"
    )
    assert one_line(ended.stderr) == one_line(capsys.readouterr().err)
    assert ended.returncode == 2


@pytest.mark.parametrize(
    "command, content, told",
    [
        ("image x", "stepz: 3", "mine.yaml: unknown setting stepz (did you mean steps?)"),
        ("settings image", "stepz: 3", "mine.yaml: unknown setting stepz (did you mean steps?)"),
        ("image x", "learning-rate: 3", "unknown setting learning-rate (did you mean learning_rate?)"),
        ("image x", "xyzzy: 3", "mine.yaml: unknown setting xyzzy"),
        ("3d x", "camera: {view: 3}", "mine.yaml: unknown setting camera.view (did you mean camera.views?)"),
        ("3d x", "view_kind: 3\nmax_gaussians: 9", "max_gaussians (did you mean gaussians.max_gaussians?)"),
        ("3d x", "camera: 3", "mine.yaml: camera is 3: expected names with values"),
        ("image x", "vsd: {rang: 3}", "mine.yaml: vsd: unknown setting rang (did you mean rank?)"),
        ("image x", "steps: many", "mine.yaml: steps is 'many': expected a whole number"),
        ("image x", "steps: 0", "mine.yaml: steps is 0: expected at least 1"),
        ("image x", "steps:", "mine.yaml: steps is None: expected a whole number"),
        ("image x", "device: tpu", "mine.yaml: device is 'tpu': expected auto, cpu, cuda or cuda:N"),
        ("image x", "weighting: wurst", "mine.yaml: weighting is 'wurst': expected 'none', 'random', "),
        ("image x", "t_range_start: [1]", "t_range_start.1 is missing"),
        ("image x", "candidates: 1", "mine.yaml: "),
    ],
)
def test_files_of_settings_that_cannot_be_used(
    command: str, content: str, told: str, tmp_path: Path, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    Path("mine.yaml").write_text(content)
    assert main([*command.split(), "--config", "mine.yaml"]) == 2
    assert told in one_line(capsys.readouterr().err)


@pytest.mark.parametrize(
    "content, told",
    [
        ("methodz: {A: {}}", "unknown setting methodz (did you mean methods?)"),
        ("methods: {A: {stepz: 3}}", "method A: unknown setting stepz (did you mean steps?)"),
        (
            "methods: {A: {best_of: 0}}",
            "methods.A: best_of is 0: expected 1 to 1000, or the name of a method",
        ),
    ],
)
def test_plans_that_cannot_be_used(
    content: str, told: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plan = tmp_path / "plan.yaml"
    plan.write_text(f"prompts: [a red cube]\n{content}\n")
    assert main(["compare", str(plan), "--out", str(tmp_path / "out")]) == 2
    assert told in one_line(capsys.readouterr().err)


@pytest.mark.parametrize(
    "command, ending",
    [("export . --to glb", "glb"), ("score picture.png --metrics clip", "md"), ("toybox show cube", "png")],
)
def test_files_that_cannot_be_written(
    command: str, ending: str, tmp_path: Path, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """The path that was given is named, and nothing else is made."""
    monkeypatch.chdir(tmp_path)
    Path("file").write_text("")
    Path("picture.png").write_text("")
    Path("locked").mkdir(mode=0o500)
    for out, reason in ((f"file/x.{ending}", "not a directory"), (f"locked/x.{ending}", "permission denied")):
        if os.geteuid() == 0 and out.startswith("locked"):
            continue
        assert main([*command.split(), "--out", out]) == 1
        assert (
            one_line(capsys.readouterr().err)
            == f"rewardsds: error: {reason}: {out}; give another place with --out"
        )
    assert {path.name for path in tmp_path.rglob("*")} == {"file", "picture.png", "locked"}


def test_a_file_that_cannot_be_written_at_the_end(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The temporary file in its place is not named."""
    sheet = tmp_path / "sheet.png"
    arguments = ["toybox", "show", "a red cube", "--scenes", "1", "--size", "16", "--out", str(sheet)]
    sheet.mkdir()
    assert main(arguments) == 1
    told = f"{sheet}; give another place with --out"
    assert f"there is a folder of that name: {told}" in one_line(capsys.readouterr().err)
    monkeypatch.setattr("rewardsds.cli._check_writable", lambda path: None)  # as if it had come meanwhile
    assert main(arguments) == 1
    assert f"is a directory: {told}" in one_line(capsys.readouterr().err)
    assert list(tmp_path.iterdir()) == [sheet]


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="a folder in which even root makes no files")
def test_a_file_of_which_a_library_says_no_name(tmp_path: Path) -> None:
    with pytest.raises(OSError) as caught:
        write_video([torch.zeros(3, 16, 16)], "/proc/turntable.mp4")
    assert caught.value.filename == "/proc/turntable.mp4"


def test_folders_that_cannot_be_used(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.tex").write_text("")
    for out in ("file", "file/run", "full"):
        assert main(["image", "a red cube", "--out", out]) == 1
        assert "--out" in one_line(capsys.readouterr().err)
    assert main(["image", "a red cube", "--out", "full", "--force"]) == 1
    assert "left alone" in one_line(capsys.readouterr().err)
    for run in ("nowhere", "file", "full"):
        assert main(["resume", run]) == 1
        assert run in one_line(capsys.readouterr().err)


def test_a_prior_that_is_not_there(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert (
        main(["image", "a red cube", "--prior", str(tmp_path / "gone"), "--out", str(tmp_path / "run")]) == 1
    )
    assert "gone" in one_line(capsys.readouterr().err)
    assert list(tmp_path.iterdir()) == []


def test_real_processes_fail_in_one_line_too(tmp_path: Path) -> None:
    ended = run_command("image", "a red cube", "--candidates", "1", folder=tmp_path)
    assert ended.returncode == 2
    assert "needs at least 2" in one_line(ended.stderr)
    ended = run_command("--version", folder=tmp_path)
    assert (ended.returncode, ended.stdout.strip()) == (0, f"rewardsds {__version__}")


def test_help_needs_no_heavy_library(tmp_path: Path) -> None:
    heavy = ("torch", "diffusers", "transformers", "numba", "matplotlib", "scipy")
    code = (
        "import sys; from rewardsds.cli import main\n"
        "for words in ('--help', '3d --help', 'score --help', 'image x --candidates 1', '--version'):\n"
        "    main(words.split())\n"
        f"assert not (loaded := [name for name in {heavy} if name in sys.modules]), loaded\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    ended = subprocess.run(
        [sys.executable, "-c", code], env=environment, cwd=tmp_path, capture_output=True, text=True
    )
    assert ended.returncode == 0, ended.stderr
    assert "--gaussians.max-gaussians" in ended.stdout
    assert "--candidates" in ended.stdout


def test_unexpected_errors_are_one_line_and_a_log(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> int:
        raise ZeroDivisionError("division by zero")

    monkeypatch.setattr("rewardsds.cli._resume", broken)
    monkeypatch.delenv("REWARDSDS_DEBUG", raising=False)
    assert main(["resume", "x"]) == 1
    line = one_line(capsys.readouterr().err)
    assert "ZeroDivisionError" in line
    log = Path(line.split("traceback in ")[1].rstrip(")"))
    assert "Traceback" in log.read_text()
    log.unlink()
    with pytest.raises(ZeroDivisionError):
        main(["resume", "x", "--debug"])


def test_interrupted_is_130(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr("rewardsds.cli._resume", interrupted)
    assert main(["resume", "x"]) == 130
    assert "interrupted" in one_line(capsys.readouterr().err)


# --- runs with small random models --------------------------------------------------------------------------


@pytest.fixture
def tiny(tiny_prior_folder: Path, tiny_clip_folder: Path, tmp_path: Path) -> list[str]:
    """Options of a run that ends in a moment."""
    return [
        "--prior", str(tiny_prior_folder), "--reward", str(tiny_clip_folder), "--device", "cpu",
        "--threads", "1", "--steps", "3", "--checkpoint-every", "2", "--previews-every", "2",
    ]  # fmt: skip


PROMPT = "a red apple"  # words that the tiny prior knows


def test_image_resume_config_and_force(
    tiny: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    assert main(["image", PROMPT, "--out", str(run), "--seed", "3", *tiny]) == 0
    captured = capsys.readouterr()
    assert captured.out.splitlines() == [str(run / "report.html"), str(run / "image.png")]
    assert "step 3/3" in captured.err
    assert "peak memory" in captured.err

    assert main(["resume", str(run)]) == 0
    assert "is finished" in capsys.readouterr().err
    assert main(["image", PROMPT, "--out", str(run), *tiny]) == 1
    assert "--force" in one_line(capsys.readouterr().err)

    # the settings given back make the same picture; options on the command line count before the file
    again = tmp_path / "again"
    settings = str(run / "settings.yaml")
    assert main(["image", "--config", settings, "--out", str(again)]) == 0
    assert (again / "image.png").read_bytes() == (run / "image.png").read_bytes()
    assert main(["image", "--config", settings, "--out", str(again), "--force", "--seed", "4"]) == 0
    assert (again / "image.png").read_bytes() != (run / "image.png").read_bytes()
    assert yaml.safe_load((again / "settings.yaml").read_text())["seed"] == 4
    assert yaml.safe_load((again / "settings.yaml").read_text())["steps"] == 3
    capsys.readouterr()
    assert main(["3d", "--config", settings]) == 2
    assert "settings of task image" in one_line(capsys.readouterr().err)


def test_prompts_of_a_file_are_made_side_by_side(
    tiny: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each as it would be alone. Sums are made in another order in a batch, so pixels may differ by one."""
    prompts = tmp_path / "prompts.txt"
    prompts.write_text("# two of them\na red apple\n\na green car\n")
    run = tmp_path / "run"
    assert main(["image", "--prompts", str(prompts), "--out", str(run), *tiny]) == 0
    told = capsys.readouterr()
    assert re.search(
        r"2 pictures at once need about .* GiB of memory; about \d+ fit into the .* GiB", told.err
    )
    names = [Path(line).name for line in told.out.splitlines()]
    assert names == ["report.html", "image_000_a-red-apple_0.png", "image_001_a-green-car_0.png"]
    alone = tmp_path / "alone"
    assert main(["image", "a green car", "--out", str(alone), *tiny]) == 0
    one, other = (np.asarray(Image.open(path), np.int32) for path in (alone / "image.png", run / names[2]))
    assert np.abs(one - other).max() <= 1
    assert yaml.safe_load((run / "settings.yaml").read_text())["prompts"] == ["a red apple", "a green car"]
    prompts.unlink()  # the run knows them now
    again = tmp_path / "again"
    assert main(["image", "--config", str(run / "settings.yaml"), "--out", str(again)]) == 0
    assert (again / names[1]).read_bytes() == (run / names[1]).read_bytes()


def test_more_prompts_than_memory_holds_are_refused_before_they_start(
    tiny: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    prompts = tmp_path / "prompts.txt"
    prompts.write_text("a red apple\n" * 20)
    monkeypatch.setattr(text_to_image, "free_memory", lambda device: 2**20)
    assert main(["image", "--prompts", str(prompts), "--out", str(tmp_path / "run"), *tiny]) == 2
    told = one_line(capsys.readouterr().err)
    assert re.search(
        r"20 pictures at once need about .* GiB .* are free: about \d+ fit; divide the prompts", told
    )
    assert not (tmp_path / "run" / "settings.yaml").exists()


@pytest.mark.parametrize(
    "content, arguments, told",
    [
        (None, [], "there is no such file; expected a file"),
        ("", [], "holds no prompts"),
        ("# nothing\n\n", [], "holds no prompts"),
        ("a red apple\n", ["a green car"], "one of them is enough"),
        ("a red apple\na green car\n", ["--loss", "vsd"], "one estimator for one prompt"),
    ],
)
def test_prompts_that_cannot_be_used(
    content: str | None, arguments: list[str], told: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "prompts.txt"
    if content is not None:
        path.write_text(content)
    assert main(["image", *arguments, "--prompts", str(path), "--out", str(tmp_path / "run")]) == 2
    assert told in one_line(capsys.readouterr().err)


@pytest.mark.parametrize(
    "body, told",
    [
        ("raise KeyError('no such picture')", "the reward mine failed with KeyError: 'no such picture'"),
        ("return images.mean()", "returned shape ()"),
        ("return images.mean(dim=(2, 3, 4, 5)) * float('nan')", "NaN or infinity"),
        ("return 'good'", "returned str"),
    ],
)
def test_a_users_reward_that_fails_is_named_and_the_run_goes_on_once_it_is_mended(
    body: str, told: str, tiny: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch
) -> None:
    name = f"own_reward_{abs(hash(body))}"
    module = tmp_path / f"{name}.py"
    good = "return images.mean(dim=(2, 3, 4, 5))"
    module.write_text(
        "calls = []\n\n\ndef mine(images, prompts):\n    calls.append(1)\n"
        f"    if len(calls) == 2:\n        {body}\n    {good}\n"
    )
    monkeypatch.chdir(tmp_path)
    run = tmp_path / "run"
    options = [*tiny, "--reward", f"{name}:mine"]
    assert main(["image", PROMPT, "--out", str(run), *options]) == 1
    message = one_line(capsys.readouterr().err.splitlines()[-1])
    assert told in message
    assert "step 2" in message
    assert f"rewardsds resume {run}" in message
    assert main(["resume", str(run)]) == 0  # its later calls are good
    assert main(["image", PROMPT, "--out", str(tmp_path / "whole"), *options]) == 0
    assert (run / "image.png").read_bytes() == (tmp_path / "whole" / "image.png").read_bytes()


def test_particles_have_seeds_of_their_own(
    tiny: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    options = ["--loss", "vsd", "--particles", "2", "--seed", "5", "--out", str(run)]
    assert main(["image", PROMPT, *options, *tiny]) == 0
    names = [Path(line).name for line in capsys.readouterr().out.splitlines()]
    assert names == ["report.html", "image_5.png", "image_6.png"]


def test_3d(tiny: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = tmp_path / "run"
    small = ["--gaussians.initial-gaussians", "100", "--video-size", "32", "--video-frames", "4"]
    assert main(["3d", PROMPT, "--out", str(run), *small, *tiny]) == 0
    names = [Path(line).name for line in capsys.readouterr().out.splitlines()]
    assert names == ["report.html", "turntable.mp4", "views.png", "object.ply"]
    assert all((run / name).stat().st_size > 0 for name in names)
    assert "data:video/mp4;base64," in (run / "report.html").read_text()


def test_unknown_words_end_the_run_when_nothing_is_known(
    tiny: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["image", "qqzzxx", "--out", str(tmp_path / "run"), *tiny]) == 1
    assert "does not know: qqzzxx" in one_line(capsys.readouterr().err)
    assert not (tmp_path / "run").exists()


def test_toybox_show(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    sheet = tmp_path / "sheet.png"
    arguments = ["toybox", "show", "a red apple and a dragon", "--out", str(sheet), "--scenes", "2", "--size"]
    assert main([*arguments, "32"]) == 0
    said = capsys.readouterr()
    assert said.out.strip() == str(sheet)
    assert said.err.strip() == "warning: the toybox does not know: dragon"
    with Image.open(sheet) as picture:
        assert picture.size == (4 * 36 + 4, 2 * 36 + 4)
    assert main([*arguments, "4"]) == 2
    assert "size is 4: expected 16 to 1024 pixels" in capsys.readouterr().err
    assert main(["toybox", "show", "a dragon", "--out", str(sheet)]) == 1
    assert "names no toy" in capsys.readouterr().err


def test_what_is_warned_of_is_told_in_a_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    options = ["--weighting", "softmax", "--steps", "10", "--device", "cpu", "--out", str(tmp_path / "run")]
    assert main(["image", "a red car", *options]) == 0
    (told,) = [line for line in capsys.readouterr().err.splitlines() if "steer next to nothing" in line]
    assert told.startswith("warning: the weights")


@pytest.mark.skipif(sys.platform != "linux", reason="where torch uses GNU's OpenMP")
@pytest.mark.parametrize(
    "own, told", [({}, "3000"), ({"GOMP_SPINCOUNT": "77"}, "77"), ({"OMP_WAIT_POLICY": "passive"}, "0")]
)
def test_threads_that_wait_leave_the_cores_to_others(own: dict[str, str], told: str, tmp_path: Path) -> None:
    """As OpenMP itself tells; what the user has set is kept."""
    names = ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")
    environment = {name: value for name, value in os.environ.items() if name not in names}
    done = subprocess.run(
        [sys.executable, "-m", "rewardsds", "models", "check", str(tmp_path / "missing")],
        env={**environment, **own, "OMP_DISPLAY_ENV": "verbose"},
        capture_output=True,
        text=True,
        check=False,
    )
    if "GOMP_SPINCOUNT" not in done.stderr:
        pytest.skip("this torch uses another OpenMP")
    assert f"GOMP_SPINCOUNT = '{told}'" in done.stderr
