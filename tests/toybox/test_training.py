"""The training loop and its stages, on a handful of made-up scenes."""

from __future__ import annotations

import io
import json
import multiprocessing
import pickle
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from rewardsds.rewards.load import load_reward
from rewardsds.toybox.data import ToyboxData
from rewardsds.toybox.judge import load_judge
from rewardsds.toybox.models import LATENT_SHAPE, load_autoencoder, load_clip, load_unet
from rewardsds.toybox.specification import COLOURS, KINDS, Group, SceneSpec
from rewardsds.toybox.tokenizer import build_tokenizer
from rewardsds.toybox.train import TrainSettings
from rewardsds.toybox.train.aesthetic import train_aesthetic
from rewardsds.toybox.train.autoencoder import train_autoencoder
from rewardsds.toybox.train.card import psnr, write_card
from rewardsds.toybox.train.clip import contrastive_loss, said_pairs, same_toys, train_clip
from rewardsds.toybox.train.common import Draws, fit, learning_rate
from rewardsds.toybox.train.feed import FeedPickler, Rows
from rewardsds.toybox.train.image_reward import build_network, start_from_clip, train_image_reward
from rewardsds.toybox.train.judge import train_judge
from rewardsds.toybox.train.negatives import hard_negatives, mirrored, swap_colours, wrong_colour, wrong_kind
from rewardsds.toybox.train.pictures import choose_views, kinds_of, pictures, truth
from rewardsds.toybox.train.prior import cached_latents, min_snr_weights, spread_timesteps, train_prior
from rewardsds.toybox.train.settings import StageSettings
from rewardsds.toybox.train.view_judge import train_view_judge
from rewardsds.toybox.view_judge import load_view_judge

PAINT = {"red": (220, 30, 30), "blue": (30, 30, 220), "green": (30, 180, 30), "white": (250, 250, 250)}


def silent(line: str) -> None:
    pass


@pytest.fixture(scope="module")
def data() -> ToyboxData:
    """Flat rectangles, one a toy, side by side: enough for every stage to run on."""
    rng = np.random.default_rng(0)
    scenes, count = [], 12
    views = np.full((count, 5, 64, 64, 3), 128, np.uint8)
    visible = np.zeros((count, 5, 3), np.float32)
    for row in range(count):
        kinds = rng.choice(len(KINDS), 1 + row % 2, replace=False)
        toys = [(KINDS[int(kind)], list(PAINT)[int(rng.integers(4))]) for kind in kinds]
        for place, (_, colour) in enumerate(toys):
            views[row, :, 20:44, 4 + 30 * place : 28 + 30 * place] = PAINT[colour]
            visible[row, :, place] = 24 * 24 / 64**2
        groups = tuple(Group(kind, colour) for kind, colour in toys)
        spec = SceneSpec(groups, ("and",) * (len(groups) - 1))
        scenes.append({"spec": spec, "toys": toys, "yaws": [0.0] * len(toys), "caption": ""})
    poses = np.broadcast_to(np.eye(4, dtype=np.float32), (count, 5, 4, 4)).copy()
    poses[..., 2, 3] = 3.0
    return ToyboxData(views, poses, visible, scenes)


def settings(steps: int, batch: int = 4, workers: int = 0) -> StageSettings:
    return StageSettings(steps=steps, batch=batch, learning_rate=1e-3, workers=workers)


def nothing(step: int) -> tuple[()]:
    """The batch of a step that needs none."""
    return ()


# ---------------------------------------------------------------------------------------------------- loop


def test_learning_rate_warms_up_and_decays():
    own = StageSettings(steps=100, batch=1, learning_rate=2.0, warmup=0.1, final_rate=0.1)
    assert learning_rate(own, 0.05) == pytest.approx(1.0)
    assert learning_rate(own, 0.1) == pytest.approx(2.0)
    assert learning_rate(own, 0.55) == pytest.approx(1.1)  # half way down: (1 + 0.1) / 2 of the rate
    assert learning_rate(own, 1.0) == pytest.approx(0.2)


def test_draws_depend_on_seed_and_step_alone():
    def numbers(seed: int, step: int) -> tuple[float, float]:
        draws = Draws.of(seed, step)
        return float(draws.numpy.random()), float(torch.rand((), generator=draws.torch))

    assert numbers(1, 2) == numbers(1, 2)
    assert len({numbers(1, 2), numbers(1, 3), numbers(2, 1), numbers(2, 2)}) == 4


def line_fit(
    folder: Path, stop_after: int | None = None, steps: int = 40, device: str = "cpu"
) -> tuple[nn.Linear, int]:
    torch.manual_seed(0)
    model = nn.Linear(3, 1).to(device)

    def draw(step: int) -> tuple[torch.Tensor]:
        return (torch.randn(16, 3, generator=Draws.of(0, step).torch),)

    def loss(step: int, batch: tuple[torch.Tensor]):
        (inputs,) = batch
        wanted = inputs @ torch.tensor([[1.0], [-2.0], [0.5]]).to(device) + 3
        value = (model(inputs) - wanted).square().mean()
        return value, {}

    own = StageSettings(steps=steps, batch=1, learning_rate=0.2, average=0.5, clip_norm=100, weight_decay=0)
    progress = fit(model, draw, loss, own, folder, silent, stop_after)
    return model, progress.step


def test_fit_finds_a_line(tmp_path: Path):
    model, _ = line_fit(tmp_path, steps=200)
    torch.testing.assert_close(model.weight, torch.tensor([[1.0, -2.0, 0.5]]), atol=0.05, rtol=0)
    torch.testing.assert_close(model.bias, torch.tensor([3.0]), atol=0.05, rtol=0)


def test_a_stopped_stage_ends_where_an_undisturbed_one_does(tmp_path: Path):
    whole, _ = line_fit(tmp_path / "whole")
    _, first = line_fit(tmp_path / "parts", stop_after=7)
    assert first == 7
    assert not json.loads((tmp_path / "parts" / "checkpoint" / "progress.json").read_text())["finished"]
    _, second = line_fit(tmp_path / "parts", stop_after=13)
    assert second == 20
    parts, last = line_fit(tmp_path / "parts")
    assert last == 40
    assert torch.equal(parts.weight, whole.weight)
    one = load_file(tmp_path / "whole" / "checkpoint" / "state.safetensors")
    other = load_file(tmp_path / "parts" / "checkpoint" / "state.safetensors")
    assert one.keys() == other.keys()
    assert all(torch.equal(value, other[name]) for name, value in one.items())


def test_resuming_keeps_moments_in_the_layout_of_the_weights(tmp_path: Path):
    """Kernels that lie channels last in memory: the fused optimiser pairs weight and moments by address."""

    def part(folder: Path, stop_after: int | None = None) -> nn.Conv2d:
        torch.manual_seed(0)
        model: Any = nn.Conv2d(4, 6, 3)
        model.to(memory_format=torch.channels_last)

        def loss(step: int, batch: tuple[()]):
            images = torch.randn(2, 4, 8, 8, generator=Draws.of(0, step).torch)
            return (
                model(images.contiguous(memory_format=torch.channels_last)) - images.mean()
            ).square().mean(), {}

        fit(model, nothing, loss, settings(8), folder, silent, stop_after)
        return model

    whole = part(tmp_path / "whole")
    part(tmp_path / "parts", stop_after=4)
    assert torch.equal(part(tmp_path / "parts").weight, whole.weight)


def test_a_stage_resumes_on_its_device(device: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    optimizers: list[torch.optim.AdamW] = []
    create = torch.optim.AdamW

    def kept(*args: Any, **options: Any) -> torch.optim.AdamW:
        optimizers.append(create(*args, **options))
        return optimizers[-1]

    monkeypatch.setattr(torch.optim, "AdamW", kept)
    whole, _ = line_fit(tmp_path / "whole")
    line_fit(tmp_path / "parts", stop_after=7, device=device)
    parts, step = line_fit(tmp_path / "parts", device=device)
    assert step == 40
    torch.testing.assert_close(parts.weight.cpu(), whole.weight, atol=1e-4, rtol=1e-4)
    for weight, state in optimizers[-1].state.items():
        assert {key: value.device for key, value in state.items()} == dict.fromkeys(state, weight.device)


def test_a_finished_stage_is_left_alone(tmp_path: Path):
    first, _ = line_fit(tmp_path)
    second, step = line_fit(tmp_path)
    assert step == 40
    assert torch.equal(first.weight, second.weight)


def test_an_interrupted_save_falls_back_to_the_checkpoint_before(tmp_path: Path):
    line_fit(tmp_path, stop_after=5)
    (tmp_path / "checkpoint").rename(tmp_path / "checkpoint.old")  # killed between the two renames
    assert line_fit(tmp_path, stop_after=5)[1] == 10


def test_another_networks_checkpoint_is_refused(tmp_path: Path):
    line_fit(tmp_path, stop_after=1)
    other = nn.Linear(4, 1)
    with pytest.raises(ValueError, match="another network"):
        fit(other, nothing, lambda step, batch: (other.weight.sum(), {}), settings(3), tmp_path, silent)


def test_the_log_says_how_far(tmp_path: Path):
    line_fit(tmp_path)
    records = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert [record["step"] for record in records] == [1, 10, 20, 30, 40]
    assert records[-1]["loss"] < records[0]["loss"]


def test_overrides_are_for_one_stage(tmp_path: Path):
    with pytest.raises(ValueError, match="choose one"):
        TrainSettings(data=tmp_path, out=tmp_path, steps=3)
    own = TrainSettings(data=tmp_path, out=tmp_path, stage="clip", steps=3)
    assert own.resolve("clip").steps == 3
    assert own.resolve("clip").batch == TrainSettings(data=tmp_path, out=tmp_path).resolve("clip").batch


# ---------------------------------------------------------------------------------------------------- data


def test_truth_asks_nothing_about_toys_that_barely_show(data: ToyboxData):
    visible = data.visible.copy()
    two = next(row for row, scene in enumerate(data.scenes) if len(scene["toys"]) == 2)
    visible[two, 4, 0] = 0.005
    visible[two, 3, 0] = 0.001
    changed = ToyboxData(data.views, data.poses, visible, data.scenes)
    present, asked = truth(changed, np.array([two, two, two]), np.array([4, 3, 0]))
    first, second = ((KINDS.index(kind), COLOURS.index(colour)) for kind, colour in data.scenes[two]["toys"])
    assert present[:, first[0], first[1]].tolist() == [0, 0, 1]
    assert asked[:, first[0], first[1]].tolist() == [0, 1, 1]
    assert present[:, second[0], second[1]].tolist() == [1, 1, 1]
    assert present.sum() == 4
    kinds, asked_kinds = kinds_of(present, asked)
    assert kinds[0, second[0]] == 1
    assert asked_kinds[1].min() == 1
    if first[0] != second[0]:
        assert asked_kinds[0, first[0]] == 0


def test_pictures_are_the_views(data: ToyboxData):
    images = pictures(data, np.array([3]), np.array([4]))
    assert torch.equal(images[0], torch.from_numpy(data.views[3, 4]).permute(2, 0, 1) / 255)


def test_hidden_toys_keep_their_view_out(data: ToyboxData):
    visible = data.visible.copy()
    visible[:, :4] = 0
    hidden = ToyboxData(data.views, data.poses, visible, data.scenes)
    assert set(choose_views(hidden, np.arange(12), np.random.default_rng(0), front=0.0)) == {4}
    assert set(choose_views(data, np.arange(12), np.random.default_rng(0), front=0.0)) <= {0, 1, 2, 3}


PAIR = SceneSpec((Group("cube", "red"), Group("ball", "blue")), ("left of",))
TOYS = [("cube", "red"), ("ball", "blue")]


def test_negatives_are_wrong_in_one_respect():
    assert swap_colours(PAIR) == SceneSpec((Group("cube", "blue"), Group("ball", "red")), ("left of",))
    assert mirrored(PAIR) == SceneSpec(PAIR.groups, ("right of",))
    assert swap_colours(SceneSpec((Group("cube", "red"), Group("dog")), ("and",))) is None
    assert swap_colours(SceneSpec((Group("cube", "red"), Group("ball", "red")), ("and",))) is None
    assert mirrored(SceneSpec((Group("cube", "red"),))) is None
    rng = np.random.default_rng(0)
    for _ in range(50):
        recoloured, renamed = wrong_colour(PAIR, TOYS, rng), wrong_kind(PAIR, TOYS, rng)
        assert renamed is not None
        assert sum(a != b for a, b in zip(recoloured.groups, PAIR.groups)) == 1
        changed = [(a, b) for a, b in zip(renamed.groups, PAIR.groups) if a != b]
        assert len(changed) == 1
        assert changed[0][0].kind not in ("cube", "ball")
        assert changed[0][0].colour == changed[0][1].colour
        assert PAIR not in hard_negatives(PAIR, TOYS, True, rng)


def test_a_worn_hat_stays_a_hat():
    worn = SceneSpec((Group("penguin"), Group("hat", "red")), ("wearing",))
    rng = np.random.default_rng(0)
    for _ in range(50):
        other = wrong_kind(worn, [("penguin", "black"), ("hat", "red")], rng)
        assert other is None or other.groups[1].kind == "hat"


# -------------------------------------------------------------------------------------------------- losses


def test_contrastive_loss_by_hand():
    """Two pictures with orthogonal embeddings, perfect captions, wrong captions orthogonal to their
    pictures.
    """
    image = torch.eye(4)[:2]
    text = torch.cat([image, torch.eye(4)[2:3].expand(4, 4)])
    same = torch.eye(2, dtype=torch.bool)
    value, accuracy = contrastive_loss(image, text, torch.tensor(0.0), same)
    e = np.e
    wanted = 0.5 * (np.log((e + 3) / e) + np.log((e + 1) / e))
    assert value.item() == pytest.approx(wanted, rel=1e-5)
    assert accuracy == 1
    # With the same toys in both scenes the other caption counts no longer.
    value, _ = contrastive_loss(image, text, torch.tensor(0.0), torch.ones(2, 2, dtype=torch.bool))
    assert value.item() == pytest.approx(0.5 * np.log((e + 2) / e), rel=1e-5)


def test_same_toys_whatever_their_order():
    scenes = [{"toys": TOYS}, {"toys": TOYS[::-1]}, {"toys": TOYS[:1]}]
    stand_in = ToyboxData(np.zeros((3, 5)), np.zeros(3), np.zeros(3), scenes)
    assert same_toys(stand_in, [0, 1, 2]).tolist() == [[1, 1, 0], [1, 1, 0], [0, 0, 1]]


def test_min_snr_weights():
    kept = torch.tensor([0.99, 5 / 6, 0.5, 0.01])  # signal-to-noise 99, 5, 1, 1/99
    torch.testing.assert_close(
        min_snr_weights(kept), torch.tensor([5 / 99, 1.0, 1.0, 1.0]), atol=1e-5, rtol=1e-5
    )


def test_timesteps_are_spread_and_each_is_uniform():
    generator = torch.Generator().manual_seed(0)
    draws = torch.stack([spread_timesteps(8, 1000, generator) for _ in range(2000)])
    assert (draws.sort(dim=1).values // 125 == torch.arange(8)).all()  # one in each eighth
    for column in draws.double().T:
        assert column.mean().item() == pytest.approx(499.5, abs=30)
        assert 0 <= column.min() < 10
        assert 989 < column.max() <= 999


def test_psnr_by_hand():
    assert psnr(torch.full((1, 3, 4, 4), 0.6), torch.full((1, 3, 4, 4), 0.5)).item() == pytest.approx(
        20, abs=1e-3
    )


# -------------------------------------------------------------------------------------------------- stages


@pytest.fixture(scope="module")
def trained(data: ToyboxData, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All stages for a few steps."""
    torch.set_num_threads(max(torch.get_num_threads(), 1))
    out = tmp_path_factory.mktemp("training")
    train_autoencoder(data, out, settings(20), log=silent)
    train_clip(data, out, settings(2), log=silent)
    train_prior(data, out, settings(2, batch=2), log=silent)
    train_aesthetic(data, out, settings(2), log=silent)
    train_image_reward(data, out, settings(2), log=silent)
    train_judge(data, out, settings(2), log=silent)
    train_view_judge(data, data, out, settings(2), log=silent)
    return out


def test_the_autoencoder_learns(trained: Path):
    records = [json.loads(line) for line in (trained / "autoencoder" / "log.jsonl").read_text().splitlines()]
    assert records[-1]["loss"] < 0.7 * records[0]["loss"]


def test_latents_are_scaled_to_unit_deviation(trained: Path, data: ToyboxData):
    latents = np.asarray(cached_latents(data, trained, "cpu", silent), np.float32)
    assert latents.shape == (12, 5, *LATENT_SHAPE)
    chosen = latents[np.arange(12), np.arange(12) % 5]  # the pictures that the scale was measured on
    assert chosen.std() == pytest.approx(1.0, abs=0.05)


def test_latents_are_encoded_anew_for_another_autoencoder(trained: Path, data: ToyboxData):
    said: list[str] = []
    cached_latents(data, trained, "cpu", said.append)
    assert said == []
    note = trained / "prior" / "latents.json"
    note.write_text(json.dumps({**json.loads(note.read_text()), "autoencoder": "another"}))
    cached_latents(data, trained, "cpu", said.append)
    assert said == ["encoding 60 pictures"]


def test_every_stage_exports(trained: Path):
    weights = trained / "weights"
    for name in ("unet", "vae", "text_encoder", "tokenizer", "scheduler"):
        assert any((weights / "prior" / name).iterdir())
    models = (load_autoencoder(weights), load_clip(weights), load_unet(weights))
    assert all(next(model.parameters()).dtype == torch.float32 for model in models)
    images = torch.rand(2, 1, 1, 3, 64, 64)
    for name in ("clip", "aesthetic", "image-reward"):
        assert load_reward(weights / name, "cpu")(images, ["a red cube"]).shape == (2, 1)
    assert load_judge(weights / "judge").probabilities(torch.rand(3, 64, 64)).kinds.shape == (len(KINDS),)
    assert not list(trained.rglob("*.bin")) + list(trained.rglob("*.pt")) + list(trained.rglob("*.pkl"))
    assert load_view_judge(weights / "view-judge").probabilities(torch.rand(3, 64, 64)).shape == (4,)
    for stage in ("autoencoder", "clip", "prior", "aesthetic", "image-reward", "judge", "view-judge"):
        record = json.loads((trained / stage / "stage.json").read_text())
        assert record["scenes"] == 12
        assert record["hardware"]["torch"] == torch.__version__


def test_a_stopped_prior_continues_exactly(trained: Path, data: ToyboxData, tmp_path: Path):
    import shutil

    shutil.copytree(trained, tmp_path, dirs_exist_ok=True)
    shutil.rmtree(tmp_path / "prior" / "checkpoint")
    assert train_prior(data, tmp_path, settings(2, batch=2), log=silent, stop_after=1).step == 1
    assert train_prior(data, tmp_path, settings(2, batch=2), log=silent).step == 2
    one, other = (
        load_file(folder / "prior" / "checkpoint" / "state.safetensors") for folder in (trained, tmp_path)
    )
    assert all(torch.equal(value, other[name]) for name, value in one.items())


@pytest.mark.slow
def test_workers_change_no_number(trained: Path, data: ToyboxData, tmp_path: Path):
    import shutil

    np.save(tmp_path / "views.npy", data.views)
    mapped = replace(data, views=np.load(tmp_path / "views.npy", mmap_mode="r"))
    shutil.copytree(trained / "weights", tmp_path / "weights")
    train_clip(mapped, tmp_path, settings(2, workers=2), log=silent)
    assert multiprocessing.active_children() == []
    one, other = (
        load_file(folder / "clip" / "checkpoint" / "state.safetensors") for folder in (trained, tmp_path)
    )
    assert all(torch.equal(value, other[name]) for name, value in one.items())


def test_workers_are_sent_names_of_mapped_arrays(tmp_path: Path):
    array = np.arange(60_000, dtype=np.float32).reshape(200, 300)
    for stored in (array, np.asfortranarray(array)):
        np.save(tmp_path / "array.npy", stored)
        mapped = np.load(tmp_path / "array.npy", mmap_mode="r")
        buffer = io.BytesIO()
        FeedPickler(buffer).dump((mapped, mapped[3:5]))
        assert buffer.tell() < 4000  # two rows, of 200
        whole, part = pickle.loads(buffer.getvalue())
        assert isinstance(whole, np.memmap)
        assert np.array_equal(whole, array)
        assert np.array_equal(part, array[3:5])


def test_rows_are_taken_by_broadcast_indices():
    array = np.arange(24).reshape(2, 3, 4)
    rows = Rows(array, "cpu")[torch.tensor([[1], [0]]), torch.tensor([2, 0])]
    assert rows.tolist() == [
        [array[1, 2].tolist(), array[1, 0].tolist()],
        [array[0, 2].tolist(), array[0, 0].tolist()],
    ]


def test_the_card_holds_what_was_measured(trained: Path, data: ToyboxData):
    metrics = write_card(data, trained, batch=4, log=silent, prompts=1, steps=3)
    written = json.loads((trained / "weights" / "metrics.json").read_text())
    assert written["autoencoder"]["psnr"] == metrics["autoencoder"]["psnr"]
    assert 0 <= metrics["clip"]["colour_swap_accuracy"] <= 1
    assert 0 <= metrics["prior"]["one_right"] <= 1
    assert metrics["aesthetic"]["pairs"] == 32
    assert 0 <= metrics["image-reward"]["pairs_accuracy"] <= 1
    assert sum(metrics["cost"]["megabytes"].values()) < 40
    text = (trained / "weights" / "MODEL_CARD.md").read_text()
    for kind, found in metrics["view-judge"].items():
        assert f"{kind} {100 * found['told']:.1f} %" in text
    assert f"{metrics['autoencoder']['psnr']:.1f} dB PSNR" in text
    assert f"{100 * metrics['judge']['single_accuracy']:.1f} %" in text
    assert (trained / "card" / "one.png").exists()


def test_image_reward_starts_from_the_clip(trained: Path):
    """Its vision tower is the CLIP's but for the norm before the layers, which BLIP has not: without that norm in the
    CLIP both say the same.
    """
    clip = load_clip(trained / "weights")
    network = build_network(build_tokenizer()).eval()
    start_from_clip(network, clip)
    clip.vision_model.pre_layrnorm = nn.Identity()
    images = torch.rand(2, 3, 64, 64)
    ours = network.vision(pixel_values=images, output_hidden_states=True).hidden_states[-1]
    theirs = clip.vision_model(pixel_values=images, output_hidden_states=True).hidden_states[-1]
    torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=1e-4)


def test_a_stage_whose_model_is_missing_names_it(data: ToyboxData, tmp_path: Path):
    with pytest.raises(ValueError, match="run the training stage"):
        train_clip(data, tmp_path, settings(1), log=silent)


def test_captions_say_pairs_and_leave_unsaid_colours_open():
    spec = SceneSpec((Group("car", "red"), Group("dog"), Group("car", "blue")), ("and", "and"))
    present, asked = said_pairs([spec])
    car, dog, cube = (KINDS.index(kind) for kind in ("car", "dog", "cube"))
    assert [COLOURS[c] for c in present[0, car].nonzero().flatten()] == ["red", "blue"]
    assert present.sum() == 2
    assert asked[0, car].all()
    assert asked[0, cube].all()
    assert not asked[0, dog].any()
