"""The command with models in their published formats, small and random: their options, from a prompt to files."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch import Tensor

import tiny_pipelines
from rewardsds.cli import main
from rewardsds.distillation.guidance import RewardSDS
from rewardsds.scenes.export import save_png


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    at = tmp_path_factory.mktemp("priors")
    return {
        "sdxl": tiny_pipelines.save_sdxl(at / "sdxl"),
        "sd3": tiny_pipelines.save_sd3(at / "sd3"),
        "flux": tiny_pipelines.save_flux(at / "flux"),
    }


def metrics(run: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


SMALL = ["--steps", "3", "--threads", "1", "--previews-every", "0", "--image-size", "16", "--device", "cpu"]


@pytest.mark.parametrize(
    "prior, options",
    [
        ("sdxl", ["--attention-slicing", "--vae-tiling", "--offload", "--reward-steps", "1"]),
        ("sd3", ["--chunk", "3", "--loss", "vsd", "--precision", "bf16"]),
        ("flux", ["--distilled-guidance", "2", "--loss", "csd", "--rollout-steps", "2"]),
    ],
)
def test_a_picture(
    prior: str, options: list[str], folders: dict[str, Path], tiny_clip_folder: Path, tmp_path: Path
):
    run = tmp_path / "run"
    given = ["--prior", str(folders[prior]), "--reward", str(tiny_clip_folder), "--out", str(run)]
    assert main(["image", "a red apple", *given, *SMALL, *options]) == 0
    assert (run / "image.png").is_file()
    lines = metrics(run)
    assert [line["rewards"] is None for line in lines] == (
        [False, True, True] if "--offload" in options else [False] * 3
    )


def test_the_distilled_guidance_and_the_chunk_are_used(
    folders: dict[str, Path], tiny_clip_folder: Path, tmp_path: Path
):
    made = {}
    for name, options in {
        "plain": [],
        "again": [],
        "guided": ["--distilled-guidance", "30"],
        "chunks": ["--chunk", "1"],
    }.items():
        given = [
            "--prior",
            str(folders["flux"]),
            "--reward",
            str(tiny_clip_folder),
            "--out",
            str(tmp_path / name),
        ]
        assert main(["image", "a red apple", *given, *SMALL, *options]) == 0
        made[name] = metrics(tmp_path / name)[-1]["gradient_norm"]
    assert made["plain"] == made["again"] != made["guided"]
    assert made["chunks"] == pytest.approx(made["plain"], rel=1e-3)


def test_an_object_from_a_prior_without_views(
    tiny_single_view_prior_folder: Path,
    tiny_clip_folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
):
    told: list[object] = []
    called = RewardSDS.__call__

    def overheard(self: RewardSDS, *given: object, **named: object) -> Tensor:
        condition = self.prior.condition

        def listen(*asked: object, **more: object):
            found = condition(*asked, **more)  # pyright: ignore
            told.append(found.prompts)
            return found

        monkeypatch.setattr(self.prior, "condition", listen)
        try:
            return called(self, *given, **named)  # pyright: ignore
        finally:
            monkeypatch.setattr(self.prior, "condition", condition)

    monkeypatch.setattr(RewardSDS, "__call__", overheard)
    given = ["--prior", str(tiny_single_view_prior_folder), "--reward", str(tiny_clip_folder)]
    small = [
        *SMALL,
        "--gaussians.initial-gaussians",
        "60",
        "--camera.resolution",
        "16",
        "--video-frames",
        "2",
    ]
    small += ["--video-size", "16", "--view-prompts.perp-neg"]
    assert main(["3d", "a red car", *given, *small, "--out", str(tmp_path / "run")]) == 0
    endings = {str(view).removeprefix("a red car, ") for prompts in told for item in prompts for view in item}  # pyright: ignore
    assert endings <= {"front view", "side view", "back view"}
    assert len(endings) == 3
    told.clear()
    assert (
        main(["3d", "a red car", *given, *small, "--view-prompts.use", "off", "--out", str(tmp_path / "off")])
        == 0
    )
    assert told == [["a red car"]] * 3


def test_an_edit_with_a_flow_keeps_to_its_lower_timesteps(
    folders: dict[str, Path], tiny_clip_folder: Path, tmp_path: Path
):
    save_png(torch.rand(3, 20, 30, generator=torch.Generator().manual_seed(0)), tmp_path / "before.png")
    given = [
        "--prior",
        str(folders["sd3"]),
        "--reward",
        str(tiny_clip_folder),
        "--out",
        str(tmp_path / "run"),
    ]
    options = ["--source", "a red apple", "--target", "a green apple", "--flow-t-max", "0.2", "--steps", "12"]
    assert main(["edit", str(tmp_path / "before.png"), *given, *SMALL[2:], *options]) == 0
    timesteps = [line["timesteps"][0] for line in metrics(tmp_path / "run")]  # pyright: ignore
    assert max(timesteps) <= 200


def test_a_run_goes_on_without_a_grader_that_fails(
    tiny_single_view_prior_folder: Path,
    tiny_clip_folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
):
    pytest.importorskip("openai")
    monkeypatch.setenv("OPENAI_API_KEY", "none-is-needed")
    reward = f"{tiny_clip_folder} + 0.5 * grader:anything"
    given = ["--prior", str(tiny_single_view_prior_folder), "--reward", reward, *SMALL]
    grader = [
        "--grader.url",
        "http://127.0.0.1:9/v1",
        "--grader.retries",
        "0",
        "--grader.cache",
        str(tmp_path / "c"),
    ]
    assert main(["image", "a red car", *given, *grader, "--out", str(tmp_path / "stop")]) == 1
    said = capsys.readouterr().err
    assert "http://127.0.0.1:9/v1 cannot be reached" in said
    assert "rewardsds resume" in said
    options = ["--reward-failures", "skip", "--out", str(tmp_path / "skip")]
    assert main(["image", "a red car", *given, *grader, *options]) == 0
    assert "warning: going on without the reward grader:anything" in capsys.readouterr().err
    monkeypatch.delenv("OPENAI_API_KEY")
    assert main(["image", "a red car", *given, *grader, "--out", str(tmp_path / "no-key")]) == 1
    assert "OPENAI_API_KEY" in capsys.readouterr().err


def test_what_does_not_go_together_is_told(
    folders: dict[str, Path], tiny_prior_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    def error(*arguments: str) -> str:
        assert main(["image", "a red car", "--device", "cpu", "--out", str(tmp_path / "x"), *arguments]) in (
            1,
            2,
        )
        return capsys.readouterr().err

    assert "multiple of 4 pixels, got 18" in error("--prior", str(folders["flux"]), "--image-size", "18")
    assert "multi-view network" in error("--prior", str(tiny_prior_folder), "--attention-slicing")
    assert "chunk" in error("--chunk", "0")
    assert "lacks text_encoder_2" in error(
        "--prior", str(_without(folders["sdxl"], "text_encoder_2", tmp_path))
    )


def _without(folder: Path, part: str, tmp_path: Path) -> Path:
    import shutil

    shutil.copytree(folder, tmp_path / "part")
    shutil.rmtree(tmp_path / "part" / part)
    return tmp_path / "part"
