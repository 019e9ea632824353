"""Models in the hub's cache: mirrors, half a download, and what is told where nothing may be downloaded."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

import tiny_models
from models.test_models_command import MIRROR, Hub, files_in, in_process
from priors.test_single_files import SingleFile
from rewardsds.catalogue import SD21_BASE, known, pinned
from rewardsds.models import doctor
from rewardsds.pretrained import load_tokenizer
from rewardsds.priors.load import load_prior
from rewardsds.rewards.load import load_reward

COMMIT = "0123456789" * 4


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty one of the hub's, without a network."""
    folder = tmp_path / "cache"
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(folder))
    return folder


@pytest.fixture
def hub() -> Iterator[Hub]:
    yield from Hub().serve()


def put(cache: Path, repo: str, files: dict[str, bytes], commit: str | None = None) -> Path:
    """As the hub's library leaves them after a download, of the commit that is pinned unless another is given."""
    commit = commit or pinned(repo) or COMMIT
    place = cache / f"models--{repo.replace('/', '--')}"
    (place / "refs").mkdir(parents=True, exist_ok=True)
    (place / "refs" / "main").write_text(commit)
    (place / "blobs").mkdir(exist_ok=True)
    for name, data in files.items():
        path = place / "snapshots" / commit / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return place


def tokenizer_files(folder: Path) -> dict[str, bytes]:
    tiny_models.tokenizer().save_pretrained(str(folder / "tokenizer"))
    return files_in(folder)


def test_the_tokenizer_of_a_mirror_is_taken_where_that_alone_is_there(cache: Path, tmp_path: Path) -> None:
    torch.save(SingleFile().state_dict(), tmp_path / "mvdream.pt")
    with pytest.raises(ValueError, match=f"tokenizer of {SD21_BASE} cannot be loaded") as error:
        load_prior(tmp_path / "mvdream.pt", "cpu")
    told = str(error.value)
    assert all(text in told for text in (f"{SD21_BASE}: it is not there", f"{MIRROR}: it is not there"))
    assert all(text in told for text in ("HF_HUB_OFFLINE is set", str(cache), "--companion FOLDER"))
    put(cache, MIRROR, tokenizer_files(tmp_path / "files"))
    prior = load_prior(tmp_path / "mvdream.pt", "cpu")
    assert prior.tokenizer.get_vocab() == tiny_models.tokenizer().get_vocab()


def test_half_a_companion_does_not_hide_its_mirror(cache: Path, tmp_path: Path) -> None:
    put(cache, SD21_BASE, {"tokenizer/tokenizer_config.json": b'{"tokenizer_class": "CLIPTokenizer"}'})
    with pytest.raises(ValueError, match=f"{SD21_BASE}: .*vocabulary is missing.*{MIRROR}: it is not there"):
        load_tokenizer(SD21_BASE, "tokenizer")
    put(cache, MIRROR, tokenizer_files(tmp_path / "files"))
    assert load_tokenizer(SD21_BASE, "tokenizer").get_vocab() == tiny_models.tokenizer().get_vocab()


def test_companions_are_fetched_from_mirrors_too(hub: Hub, tmp_path: Path) -> None:
    mvdream = known("mvdream")
    hub.repos = {
        mvdream.repos[0]: {mvdream.files[0]: b"x"},
        MIRROR: tokenizer_files(tmp_path / "files"),
    }
    home = {"HF_HOME": str(tmp_path / "home")}
    done = in_process(hub, "-m", "rewardsds", "models", "fetch", "mvdream", **home)
    assert (done.returncode, "warning" in done.stderr) == (0, False), done.stderr
    load = f"from rewardsds.pretrained import load_tokenizer; print(len(load_tokenizer({SD21_BASE!r}, 'tokenizer')))"
    done = in_process(hub, "-c", load, HF_HUB_OFFLINE="1", **home)
    assert done.stdout.split() == [str(len(tiny_models.tokenizer()))], done.stderr


def test_a_companion_that_nobody_gives_is_told_in_our_words(hub: Hub, tmp_path: Path) -> None:
    """The hub's library warns of patterns that nothing matched."""
    mvdream = known("mvdream")
    hub.repos = {mvdream.repos[0]: {mvdream.files[0]: b"x"}, MIRROR: {"other.bin": b"x"}}
    done = in_process(hub, "-m", "rewardsds", "models", "fetch", "mvdream", HF_HOME=str(tmp_path / "home"))
    assert done.returncode == 0
    (line,) = [line for line in done.stderr.splitlines() if "warning" in line]
    assert f"{SD21_BASE}: the hub has no such repository" in line
    assert f"{MIRROR}: it has none of the files" in line
    assert "allow_patterns" not in done.stderr


@pytest.mark.parametrize(
    "load, source, repos",
    [
        (load_prior, "sd-2.1-base", known("sd-2.1-base").repos),
        (load_prior, "nobody/nothing-here", ("nobody/nothing-here",)),
        (load_reward, "clip-l", known("clip-l").repos),
        (load_reward, "siglip", known("siglip").repos),
    ],
)
def test_without_downloads_the_cache_that_was_asked_is_named(
    load: object, source: str, repos: tuple[str, ...], cache: Path
) -> None:
    assert callable(load)
    with pytest.raises(ValueError, match="HF_HUB_OFFLINE is set") as error:
        load(source, "cpu")
    told = str(error.value)
    assert str(cache) in told
    assert all(repo in told for repo in repos)
    if "/" not in source:
        assert f"unset HF_HUB_OFFLINE and get it with `rewardsds models fetch {source}`" in told
    assert "\n" not in told
    assert (error.value.__cause__, error.value.__context__) == (None, None)  # no chain of tracebacks


def test_half_a_prior_says_how_it_is_completed(cache: Path, tiny_single_view_prior_folder: Path) -> None:
    whole = files_in(tiny_single_view_prior_folder) | {"model_index.json": b"{}"}
    half = {name: data for name, data in whole.items() if not name.startswith(("vae/", "unet/diff"))}
    put(cache, SD21_BASE, half)
    for name in ("sd-2.1-base", SD21_BASE):
        with pytest.raises(ValueError, match=r"in part and lacks .*models fetch sd-2.1-base`") as error:
            load_prior(name, "cpu")
        assert "unet/*.safetensors, vae/config.json, vae/*.safetensors" in str(error.value)
    put(cache, MIRROR, whole)
    assert load_prior("sd-2.1-base", "cpu").image_size == 16


def in_the_cache() -> tuple[list[str], dict[str, str]]:
    """As `rewardsds doctor` has it: what is whole, and what is said of the rest."""
    lines = [line.strip() for line in doctor.doctor()]
    whole = next(line for line in lines if line.startswith("in it")).removeprefix("in it").strip()
    parts = [line.removeprefix("in part").strip() for line in lines if line.startswith("in part")]
    return whole.split(", "), {part.split(",")[0]: part for part in parts}


def test_doctor_tells_half_a_download_from_a_whole_one(
    cache: Path, tiny_single_view_prior_folder: Path, tiny_clip_folder: Path
) -> None:
    prior = files_in(tiny_single_view_prior_folder) | {"model_index.json": b"{}"}
    clip = known("clip-l")
    siglip, sd15, hps = (known(name) for name in ("siglip", "sd-1.5", "hps-v2"))
    reward = known("image-reward")
    put(cache, clip.repos[0], files_in(tiny_clip_folder), str(clip.revision))
    put(cache, sd15.repos[0], prior, str(sd15.revision))
    put(cache, SD21_BASE, {name: data for name, data in prior.items() if not name.endswith(".safetensors")})
    index = b'{"weight_map": {"a": "model-1.safetensors", "b": "model-2.safetensors"}}'
    split = {"config.json": b"{}", "model.safetensors.index.json": index, "model-1.safetensors": b"x"}
    put(cache, siglip.repos[0], split)
    begun = put(cache, reward.repos[0], {}, str(reward.revision))
    (begun / "blobs" / "0.incomplete").write_bytes(b"x")
    place = put(cache, hps.repos[0], {"README.md": b"x"}, str(hps.revision)) / "snapshots" / str(hps.revision)
    (place / hps.files[0]).symlink_to("../../blobs/not-there")
    whole, parts = in_the_cache()
    assert whole == ["sd-1.5", "clip-l"]
    assert set(parts) == {"sd-2.1-base", "siglip", "image-reward", "hps-v2", "hps-v2.1"}
    assert (
        "it lacks unet/*.safetensors, vae/*.safetensors, text_encoder/*.safetensors" in parts["sd-2.1-base"]
    )
    assert "it lacks model-2.safetensors" in parts["siglip"]
    assert f"it lacks {hps.files[0]}" in parts["hps-v2"]
    for name, line in parts.items():
        assert line.endswith(f"rewardsds models fetch {name}")


@pytest.mark.parametrize("value, told", [("0", False), ("", False), ("1", True), ("ON", True)])
def test_downloads_are_forbidden_as_the_hubs_library_has_it(
    hub: Hub, tmp_path: Path, value: str, told: bool
) -> None:
    code = "from rewardsds.models.doctor import _models; print(*_models(), sep='\\n')"
    place = {"HF_HUB_OFFLINE": value, "HF_HOME": str(tmp_path)}
    done = in_process(hub, "-c", code, **place)
    assert ("nothing is downloaded" in done.stdout) == told, done.stderr
    done = in_process(hub, "-m", "rewardsds", "models", "fetch", "siglip", **place)
    assert done.returncode == 1
    assert ("HF_HUB_OFFLINE is set" in done.stderr) == told
    assert (hub.asked == []) == told
