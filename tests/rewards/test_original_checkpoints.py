"""Published formats, with small random weights under their authors' names, against the architectures written out."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers import CLIPModel

import tiny_models
from rewardsds.distillation.guidance import RewardSDS
from rewardsds.foreign import read_checkpoint
from rewardsds.priors.load import load_prior
from rewardsds.priors.view_dependent import ViewDependentPrior
from rewardsds.rewards.base import RewardError
from rewardsds.rewards.clip import CLIP_MEAN, CLIP_STD
from rewardsds.rewards.image_reward import ImageReward
from rewardsds.rewards.original import clip_from_open_clip, image_reward_network
from rewardsds.rewards.reward3d import Reward3D, reward3d_network
from rewardsds.rewards.views import OverViews, score
from rewardsds.scenes.cameras import orbit

WIDTH, TEXT, INNER = 64, 64, 96  # one head of 64 channels
SIZE, PATCH = 16, 4
VOCABULARY, LENGTH = tiny_models.TEXT["vocab_size"], 12
MLP = {0: (TEXT, 24), 2: (24, 12), 4: (12, 8), 6: (8, 4), 7: (4, 1)}


def linear(state: dict[str, Tensor], name: str, inputs: int, outputs: int) -> None:
    state[f"{name}.weight"] = 0.1 * torch.randn(outputs, inputs)
    state[f"{name}.bias"] = 0.1 * torch.randn(outputs)


def norm(state: dict[str, Tensor], name: str, width: int) -> None:
    state[f"{name}.weight"] = 1 + 0.1 * torch.randn(width)
    state[f"{name}.bias"] = 0.1 * torch.randn(width)


def image_reward_state() -> dict[str, Tensor]:
    torch.manual_seed(0)
    state: dict[str, Tensor] = {}
    at = "blip.visual_encoder"
    state[f"{at}.cls_token"] = torch.randn(1, 1, WIDTH)
    state[f"{at}.pos_embed"] = torch.randn(1, (SIZE // PATCH) ** 2 + 1, WIDTH)
    state[f"{at}.patch_embed.proj.weight"] = 0.2 * torch.randn(WIDTH, 3, PATCH, PATCH)
    state[f"{at}.patch_embed.proj.bias"] = torch.randn(WIDTH)
    for i in range(2):
        block = f"{at}.blocks.{i}"
        norm(state, f"{block}.norm1", WIDTH)
        norm(state, f"{block}.norm2", WIDTH)
        linear(state, f"{block}.attn.qkv", WIDTH, 3 * WIDTH)
        linear(state, f"{block}.attn.proj", WIDTH, WIDTH)
        linear(state, f"{block}.mlp.fc1", WIDTH, INNER)
        linear(state, f"{block}.mlp.fc2", INNER, WIDTH)
    norm(state, f"{at}.norm", WIDTH)
    at = "blip.text_encoder"
    state[f"{at}.embeddings.position_ids"] = torch.arange(LENGTH)[None]
    state[f"{at}.embeddings.word_embeddings.weight"] = torch.randn(VOCABULARY, TEXT)
    state[f"{at}.embeddings.position_embeddings.weight"] = torch.randn(LENGTH, TEXT)
    norm(state, f"{at}.embeddings.LayerNorm", TEXT)
    for i in range(2):
        layer = f"{at}.encoder.layer.{i}"
        for name, source in (("attention", TEXT), ("crossattention", WIDTH)):
            linear(state, f"{layer}.{name}.self.query", TEXT, TEXT)
            linear(state, f"{layer}.{name}.self.key", source, TEXT)
            linear(state, f"{layer}.{name}.self.value", source, TEXT)
            linear(state, f"{layer}.{name}.output.dense", TEXT, TEXT)
            norm(state, f"{layer}.{name}.output.LayerNorm", TEXT)
        linear(state, f"{layer}.intermediate.dense", TEXT, INNER)
        linear(state, f"{layer}.output.dense", INNER, TEXT)
        norm(state, f"{layer}.output.LayerNorm", TEXT)
    linear(state, "blip.vision_proj", WIDTH, 8)
    linear(state, "blip.text_proj", TEXT, 8)
    for index, (inputs, outputs) in MLP.items():
        linear(state, f"mlp.layers.{index}", inputs, outputs)
    return state


def apply(w: dict[str, Tensor], name: str, x: Tensor) -> Tensor:
    return F.linear(x, w[f"{name}.weight"], w[f"{name}.bias"])


def normed(w: dict[str, Tensor], name: str, x: Tensor, eps: float) -> Tensor:
    return F.layer_norm(x, x.shape[-1:], w[f"{name}.weight"], w[f"{name}.bias"], eps)


def attend(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None) -> Tensor:
    scores = q @ k.transpose(-1, -2) / q.shape[-1] ** 0.5
    if mask is not None:
        scores = scores.masked_fill(~mask, float("-inf"))
    return scores.softmax(-1) @ v


def read_by_hand(w: dict[str, Tensor], picture: Tensor, ids: Tensor, mask: Tensor) -> Tensor:
    """The text encoder's first state of one picture and caption: BLIP (arXiv 2201.12086) with one head."""
    at = "blip.visual_encoder"
    x = F.conv2d(
        picture[None], w[f"{at}.patch_embed.proj.weight"], w[f"{at}.patch_embed.proj.bias"], stride=PATCH
    )
    x = torch.cat([w[f"{at}.cls_token"][0], x[0].flatten(1).T]) + w[f"{at}.pos_embed"][0]
    for i in range(2):
        block = f"{at}.blocks.{i}"
        qkv = apply(w, f"{block}.attn.qkv", normed(w, f"{block}.norm1", x, 1e-6))
        x = x + apply(w, f"{block}.attn.proj", attend(*qkv.chunk(3, -1)))
        inner = apply(w, f"{block}.mlp.fc1", normed(w, f"{block}.norm2", x, 1e-6))
        x = x + apply(w, f"{block}.mlp.fc2", F.gelu(inner))
    seen = normed(w, f"{at}.norm", x, 1e-6)
    at = "blip.text_encoder"
    x = w[f"{at}.embeddings.word_embeddings.weight"][ids]
    x = x + w[f"{at}.embeddings.position_embeddings.weight"][: len(ids)]
    x = normed(w, f"{at}.embeddings.LayerNorm", x, 1e-12)
    for i in range(2):
        layer = f"{at}.encoder.layer.{i}"
        for name, hidden in (("attention", mask.bool()[None]), ("crossattention", None)):
            source = x if name == "attention" else seen
            q = apply(w, f"{layer}.{name}.self.query", x)
            k, v = (apply(w, f"{layer}.{name}.self.{part}", source) for part in ("key", "value"))
            said = apply(w, f"{layer}.{name}.output.dense", attend(q, k, v, hidden))
            x = normed(w, f"{layer}.{name}.output.LayerNorm", said + x, 1e-12)
        inner = F.gelu(apply(w, f"{layer}.intermediate.dense", x))
        x = normed(w, f"{layer}.output.LayerNorm", apply(w, f"{layer}.output.dense", inner) + x, 1e-12)
    return x[0]


def by_the_mlp(w: dict[str, Tensor], x: Tensor, layers: tuple[int, ...] = tuple(MLP)) -> Tensor:
    for index in layers:
        x = apply(w, f"mlp.layers.{index}", x)
    return x


def normalise(picture: Tensor) -> Tensor:
    mean, std = (torch.tensor(values).reshape(3, 1, 1) for values in (CLIP_MEAN, CLIP_STD))
    return (picture - mean) / std


def tokens(prompt: str) -> tuple[Tensor, Tensor]:
    read = tiny_models.tokenizer()(prompt, padding="max_length", max_length=9, return_tensors="pt")
    return read["input_ids"][0], read["attention_mask"][0]


PICTURES = torch.rand(2, 1, 4, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(1))
PROMPT = "a red apple"


def test_image_reward_from_its_own_checkpoint(tmp_path: Path) -> None:
    state = image_reward_state()
    torch.save(state, tmp_path / "ImageReward.pt")
    network = image_reward_network(read_checkpoint(tmp_path / "ImageReward.pt"))
    reward = ImageReward(network, tiny_models.tokenizer(), length=9)
    expected = torch.stack(
        [
            torch.stack(
                [by_the_mlp(state, read_by_hand(state, normalise(view), *tokens(PROMPT))) for view in one]
            )
            for one in PICTURES[:, 0]
        ]
    ).squeeze(-1)
    expected = ((expected - 0.16717362830052426) / 1.0333394966054072).mean(dim=1, keepdim=True)
    torch.testing.assert_close(reward(PICTURES, [PROMPT]), expected, atol=1e-5, rtol=1e-5)


def test_half_precision_and_wrapped_checkpoints_are_read(tmp_path: Path) -> None:
    state = {f"module.{name}": value.half() for name, value in image_reward_state().items()}
    torch.save({"state_dict": state, "epoch": 3}, tmp_path / "wrapped.pt")
    network = image_reward_network(read_checkpoint(tmp_path / "wrapped.pt"))
    torch.testing.assert_close(
        network.mlp[0].weight, image_reward_state()["mlp.layers.0.weight"], atol=1e-3, rtol=1e-3
    )


def test_reward3d_with_its_scorer() -> None:
    state = image_reward_state()
    linear(state, "Scorer.fc1", 4 * 12, 10)
    linear(state, "Scorer.fc2", 10, 6)
    linear(state, "Scorer.fc3", 6, 1)
    reward = Reward3D(reward3d_network(state), tiny_models.tokenizer(), length=9)
    for n in range(2):
        features = [
            by_the_mlp(state, read_by_hand(state, normalise(view), *tokens(PROMPT)), (0, 2))
            for view in PICTURES[n, 0]
        ]
        x = torch.cat(features)
        for layer in (1, 2, 3):
            x = apply(state, f"Scorer.fc{layer}", x)
        expected = (x[0] - 0.16717362830052426) / 1.0333394966054072
        torch.testing.assert_close(reward(PICTURES, [PROMPT])[n, 0], expected, atol=1e-5, rtol=1e-5)


def test_reward3d_with_fusion() -> None:
    state = image_reward_state()
    at = "cross_view_adapter"
    state[f"{at}.self_attn.in_proj_weight"] = 0.2 * torch.randn(3 * TEXT, TEXT)
    state[f"{at}.self_attn.in_proj_bias"] = 0.2 * torch.randn(3 * TEXT)
    linear(state, f"{at}.self_attn.out_proj", TEXT, TEXT)
    linear(state, f"{at}.fusion_gate.0", 2 * TEXT, TEXT)
    reward = Reward3D(reward3d_network(state), tiny_models.tokenizer(), length=9)
    views = torch.stack([read_by_hand(state, normalise(view), *tokens(PROMPT)) for view in PICTURES[0, 0]])
    qkv = F.linear(views, state[f"{at}.self_attn.in_proj_weight"], state[f"{at}.self_attn.in_proj_bias"])
    attended = apply(state, f"{at}.self_attn.out_proj", attend(*qkv.chunk(3, -1)))
    gate = apply(state, f"{at}.fusion_gate.0", torch.cat([views, attended], -1)).sigmoid()
    fused = (gate * attended + (1 - gate) * views).mean(0)
    expected = (by_the_mlp(state, fused)[0] - 0.16717362830052426) / 5
    torch.testing.assert_close(reward(PICTURES, [PROMPT])[0, 0], expected, atol=1e-5, rtol=1e-5)


def test_reward3d_scores_the_views_of_a_prior_that_is_told_the_view_in_words(
    tiny_single_view_prior_folder: Path,
) -> None:
    """All four together, against the object's own prompt."""
    state = image_reward_state()
    for name, (a, b) in {"fc1": (48, 10), "fc2": (10, 6), "fc3": (6, 1)}.items():
        linear(state, f"Scorer.{name}", a, b)
    reward = Reward3D(reward3d_network(state), tiny_models.tokenizer(), length=9)
    around = torch.deg2rad(torch.tensor([[0.0, 90.0, 180.0, 270.0]]))
    cameras = orbit(around, torch.tensor(0.2), torch.tensor(2.0), torch.tensor(0.7))
    guidance = RewardSDS(
        ViewDependentPrior(load_prior(tiny_single_view_prior_folder, "cpu")), reward, candidates=2
    )
    guidance(latents=torch.zeros(1, 4, 4, 8, 8), prompt="a red apple", cameras=cameras, previews=True)
    record = guidance.record
    assert record.previews is not None
    assert record.rewards is not None
    torch.testing.assert_close(record.rewards, reward(record.previews, ["a red apple"]))
    with pytest.raises(RewardError, match=r"4 views .*--camera.views 4 and --reward-over-views together"):
        score(OverViews(reward), record.previews, ["a red apple"])


def test_reward3d_wants_four_views() -> None:
    state = image_reward_state()
    with pytest.raises(ValueError, match="holds neither Scorer and cross_view_adapter"):
        reward3d_network(state)
    linear(state, "Scorer.fc1", 4 * 12, 10)
    linear(state, "Scorer.fc2", 10, 6)
    linear(state, "Scorer.fc3", 6, 1)
    reward = Reward3D(reward3d_network(state), tiny_models.tokenizer(), length=9)
    with pytest.raises(ValueError, match=r"looks at 4 views.*got \(2, 1, 3, 3, 16, 16\)"):
        reward(PICTURES[:, :, :3], [PROMPT])


@pytest.mark.parametrize(
    "damage, told",
    [
        ({"Scorer.fc1.weight": torch.zeros(5)}, r"scorer: fc1.weight has shape \(5,\): expected 2 axes"),
        ({"Scorer.fc3.weight": torch.zeros(2, 6)}, "scorer: the scorer's last layer gives 2 numbers"),
        ({"Scorer.fc2.weight": None}, "scorer: it lacks fc2.weight"),
        ({"Scorer.fc1.weight": torch.zeros(10, 40)}, "the scorer takes 40 features, and 4 views have 48"),
    ],
)
def test_a_scorer_that_is_damaged_is_told(damage: dict[str, Tensor | None], told: str) -> None:
    state: dict[str, Any] = image_reward_state()
    for name, (a, b) in {"fc1": (48, 10), "fc2": (10, 6), "fc3": (6, 1)}.items():
        linear(state, f"Scorer.{name}", a, b)
    whole = {name: value for name, value in {**state, **damage}.items() if value is not None}
    with pytest.raises(ValueError, match=f"no checkpoint of Reward3D.*{told}"):
        reward3d_network(whole)


class Block(nn.Module):
    """open_clip's residual block, whose names are its checkpoints' names."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.ln_1, self.ln_2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attn = nn.MultiheadAttention(width, heads, batch_first=True)
        self.mlp = nn.Sequential()
        self.mlp.add_module("c_fc", nn.Linear(width, 2 * width))
        self.mlp.add_module("gelu", nn.GELU())
        self.mlp.add_module("c_proj", nn.Linear(2 * width, width))

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        y = self.ln_1(x)
        x = x + self.attn(y, y, y, need_weights=False, attn_mask=mask)[0]
        return x + self.mlp(self.ln_2(x))


class Transformer(nn.Module):
    def __init__(self, width: int, heads: int, layers: int) -> None:
        super().__init__()
        self.resblocks = nn.ModuleList(Block(width, heads) for _ in range(layers))

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        for block in self.resblocks:
            x = block(x, mask)
        return x


class Vision(nn.Module):
    def __init__(self, width: int, heads: int, shared: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, width, PATCH, PATCH, bias=False)
        self.class_embedding = nn.Parameter(torch.randn(width))
        self.positional_embedding = nn.Parameter(torch.randn((SIZE // PATCH) ** 2 + 1, width))
        self.ln_pre, self.ln_post = nn.LayerNorm(width), nn.LayerNorm(width)
        self.transformer = Transformer(width, heads, 2)
        self.proj = nn.Parameter(torch.randn(width, shared))

    def forward(self, pictures: Tensor) -> Tensor:
        x = self.conv1(pictures).flatten(2).transpose(1, 2)
        x = torch.cat([self.class_embedding.expand(len(x), 1, -1), x], 1) + self.positional_embedding
        return self.ln_post(self.transformer(self.ln_pre(x))[:, 0]) @ self.proj


class OpenCLIP(nn.Module):
    def __init__(self, width: int = 64, text: int = 128, heads: int = 1, text_heads: int = 2) -> None:
        super().__init__()
        self.visual = Vision(width, heads, 24)
        self.token_embedding = nn.Embedding(VOCABULARY, text)
        self.positional_embedding = nn.Parameter(torch.randn(LENGTH, text))
        self.transformer = Transformer(text, text_heads, 2)
        self.ln_final = nn.LayerNorm(text)
        self.text_projection = nn.Parameter(torch.randn(text, 24))
        self.logit_scale = nn.Parameter(torch.tensor(2.0))

    def encode_text(self, ids: Tensor) -> Tensor:
        x = self.token_embedding(ids) + self.positional_embedding[: ids.shape[1]]
        mask = torch.full((ids.shape[1],) * 2, float("-inf")).triu(1)
        x = self.ln_final(self.transformer(x, mask))
        return x[torch.arange(len(x)), ids.argmax(1)] @ self.text_projection


@pytest.mark.parametrize("width, heads", [(64, 1), (1024, 16)])
def test_a_clip_of_open_clip(width: int, heads: int) -> None:
    torch.manual_seed(0)
    theirs = OpenCLIP(width, heads=heads).eval()
    found = clip_from_open_clip(theirs.state_dict())
    assert isinstance(found, CLIPModel)
    ours: Any = found
    pictures = torch.randn(2, 3, SIZE, SIZE)
    end = VOCABULARY - 1
    ids = torch.tensor([[1, 5, 7, end, 0, 0], [1, 9, end, 0, 0, 0]])
    with torch.no_grad():
        torch.testing.assert_close(
            ours.get_image_features(pixel_values=pictures).pooler_output,
            theirs.visual(pictures), atol=1e-4, rtol=1e-4,
        )  # fmt: skip
        torch.testing.assert_close(
            ours.get_text_features(input_ids=ids).pooler_output, theirs.encode_text(ids), atol=1e-4, rtol=1e-4
        )
    assert float(ours.logit_scale.detach()) == 2.0


@pytest.mark.parametrize("name", ["visual.conv1.weight", "visual.proj", "token_embedding.weight"])
def test_a_clip_with_a_weight_of_too_few_axes_is_told(name: str) -> None:
    state = {**OpenCLIP().state_dict(), name: torch.zeros(3)}
    own = name.removeprefix("visual.")
    with pytest.raises(
        ValueError,
        match=rf"no checkpoint of an open_clip model: {own} has shape \(3,\)",
    ):
        clip_from_open_clip(state)


Break = Callable[[dict[str, Tensor]], object]


@pytest.mark.parametrize(
    "damage, told",
    [
        (lambda s: s.pop("blip.visual_encoder.norm.bias"), "it lacks vision.post_layernorm.bias"),
        (lambda s: s.update({"extra.weight": torch.zeros(1)}), "it has extra.weight besides"),
        (lambda s: s.update({"mlp.layers.7.bias": torch.zeros(3)}), r"mlp.4.bias \(3,\) instead of \(1,\)"),
        (lambda s: s.pop("blip.visual_encoder.cls_token"), "it lacks embeddings.class_embedding"),
        (lambda s: s.clear(), "it lacks embeddings.class_embedding"),
        (
            lambda s: [s.pop(f"mlp.layers.7.{kind}") for kind in ("weight", "bias")],
            "the MLP's last layer gives 4 numbers, and a score is one",
        ),
        (
            lambda s: [s.pop(f"mlp.layers.4.{kind}") for kind in ("weight", "bias")],
            r"mlp.2.weight \(4, 8\) instead of \(4, 12\)",
        ),
        (lambda s: s.pop("mlp.layers.7.weight"), "it lacks mlp.layers.7.weight"),
        (lambda s: s.update({"mlp.layers.x.weight": torch.zeros(1, 1)}), "it has mlp.x.weight besides"),
        (
            lambda s: s.update({"mlp.layers.7.weight": torch.zeros(4)}),
            r"mlp.layers.7.weight has shape \(4,\): expected 2 axes",
        ),
        (
            lambda s: s.update({"blip.visual_encoder.cls_token": torch.tensor(1.0)}),
            r"embeddings.class_embedding has shape \(\): expected 3 axes",
        ),
        (
            lambda s: s.update({"blip.visual_encoder.patch_embed.proj.weight": torch.zeros(WIDTH, 3, 4, 0)}),
            r"patch_embedding.weight has shape \(64, 3, 4, 0\): expected 4 axes, none empty",
        ),
    ],
)
def test_a_checkpoint_of_something_else_is_told(damage: Break, told: str) -> None:
    state = image_reward_state()
    damage(state)
    with pytest.raises(ValueError, match=f"no checkpoint of ImageReward: .*{told}"):
        image_reward_network(state)


@pytest.mark.parametrize("dtype", [torch.int32, torch.int64, torch.complex64, torch.bool])
@pytest.mark.parametrize("suffix", ["pt", "safetensors"])
def test_weights_that_are_no_floating_point_numbers_are_told(
    tmp_path: Path, dtype: torch.dtype, suffix: str
) -> None:
    file = tmp_path / f"other.{suffix}"
    state = {name: value.to(dtype) for name, value in image_reward_state().items()}
    torch.save(state, file) if suffix == "pt" else save_file(state, file)
    shown = str(dtype).removeprefix("torch.")
    with pytest.raises(
        ValueError, match=rf"{file} holds {shown} weights: get it in float16, bfloat16 or float32"
    ):
        read_checkpoint(file)


def test_counters_positions_and_masks_may_be_whole_numbers(tmp_path: Path) -> None:
    state = {
        "weight": torch.zeros(3),
        "ema.num_updates": torch.tensor(3),
        "embeddings.position_ids": torch.arange(4)[None],
        "attn_mask": torch.ones(2, 2, dtype=torch.bool),
    }
    torch.save(state, tmp_path / "whole.pt")
    assert read_checkpoint(tmp_path / "whole.pt").keys() == state.keys()


class Payload:
    """What a malicious pickle would do when it is loaded."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return Path.touch, (self.path,)


def test_code_in_a_pickle_is_never_run(tmp_path: Path) -> None:
    torch.save({"weight": torch.zeros(1), "payload": Payload(tmp_path / "touched")}, tmp_path / "evil.pt")
    with pytest.raises(ValueError, match=r"would run code; get the weights as \.safetensors"):
        read_checkpoint(tmp_path / "evil.pt")
    assert not (tmp_path / "touched").exists()


def test_files_that_cannot_be_read_are_told(tmp_path: Path) -> None:
    torch.save({"weight": torch.zeros(1000)}, tmp_path / "whole.pt")
    half = (tmp_path / "whole.pt").read_bytes()
    (tmp_path / "half.pt").write_bytes(half[: len(half) // 2])
    (tmp_path / "half.safetensors").write_bytes(b"\x20\0\0\0\0\0\0\0{")
    (tmp_path / "empty.pt").write_bytes(b"")
    for name in ("half.pt", "half.safetensors", "empty.pt"):
        with pytest.raises(ValueError, match=f"{name} .*is damaged or was downloaded in part"):
            read_checkpoint(tmp_path / name)
    torch.save([1, 2], tmp_path / "list.pt")
    with pytest.raises(ValueError, match="holds no tensors: a list"):
        read_checkpoint(tmp_path / "list.pt")
    with pytest.raises(ValueError, match="no checkpoint at"):
        read_checkpoint(tmp_path / "nothing.pt")
    (tmp_path / "notes.txt").write_text("x")
    with pytest.raises(ValueError, match=r"expected one of \.safetensors, \.pt"):
        read_checkpoint(tmp_path / "notes.txt")
