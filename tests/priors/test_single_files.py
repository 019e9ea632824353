"""Single files of latent diffusion, with small random weights under their own names, against models written out here.

The modules carry the names of the original checkpoints; their forward passes follow arXiv 2112.10752 (Stable
Diffusion 1 and 2), 2307.01952 (XL) and 2308.16512 (MVDream).
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Literal

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers import CLIPTextConfig, CLIPTextModel

import tiny_models
from rewardsds.models.convert import convert
from rewardsds.priors.diffusion import DiffusionPrior
from rewardsds.priors.load import load_prior, prior_from_file, prior_from_parts
from rewardsds.priors.original import found_prediction_type, latent_unet, parts
from rewardsds.priors.pipelines import SDXLPrior

CHANNELS, CONTEXT, VIEWS = (64, 128), 64, 4
TOKENS, LENGTH = 40, 12
SUMMARY = 8
"""Width of XL's summary of a text."""
Kind = Literal["mvdream", "sd1", "sd2", "xl"]


def groups(width: int, eps: float = 1e-5) -> nn.GroupNorm:
    return nn.GroupNorm(32, width, eps=eps)


class ResBlock(nn.Module):
    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.in_layers = nn.Sequential(groups(inputs), nn.SiLU(), nn.Conv2d(inputs, outputs, 3, padding=1))
        self.emb_layers = nn.Sequential(nn.SiLU(), nn.Linear(4 * CHANNELS[0], outputs))
        self.out_layers = nn.Sequential(
            groups(outputs), nn.SiLU(), nn.Dropout(0), nn.Conv2d(outputs, outputs, 3, padding=1)
        )
        self.skip_connection = nn.Identity() if inputs == outputs else nn.Conv2d(inputs, outputs, 1)

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        h = self.in_layers(x) + self.emb_layers(embedding)[:, :, None, None]
        return self.skip_connection(x) + self.out_layers(h)


class CrossAttention(nn.Module):
    def __init__(self, width: int, context: int, kind: Kind) -> None:
        super().__init__()
        self.heads = 8 if kind == "sd1" else width // 64
        self.to_q = nn.Linear(width, width, bias=False)
        self.to_k = nn.Linear(context, width, bias=False)
        self.to_v = nn.Linear(context, width, bias=False)
        self.to_out = nn.Sequential(nn.Linear(width, width), nn.Dropout(0))

    def forward(self, x: Tensor, context: Tensor) -> Tensor:
        q, k, v = (
            part.unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for part in (self.to_q(x), self.to_k(context), self.to_v(context))
        )
        weights = (q @ k.transpose(-1, -2) / math.sqrt(q.shape[-1])).softmax(-1)
        return self.to_out((weights @ v).transpose(1, 2).flatten(2))


class GEGLU(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.proj = nn.Linear(width, 8 * width)

    def forward(self, x: Tensor) -> Tensor:
        x, gate = self.proj(x).chunk(2, -1)
        return x * F.gelu(gate)


class FeedForward(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.net = nn.Sequential(GEGLU(width), nn.Dropout(0), nn.Linear(4 * width, width))

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x)


class BasicTransformerBlock(nn.Module):
    """MVDream's has "3D" self-attention: the tokens of all views of an item in one sequence."""

    def __init__(self, width: int, kind: Kind) -> None:
        super().__init__()
        self.together = VIEWS if kind == "mvdream" else 1
        context = 2 * CONTEXT if kind == "xl" else CONTEXT
        self.attn1, self.attn2 = CrossAttention(width, width, kind), CrossAttention(width, context, kind)
        self.ff = FeedForward(width)
        self.norm1, self.norm2, self.norm3 = (nn.LayerNorm(width) for _ in range(3))

    def forward(self, x: Tensor, context: Tensor) -> Tensor:
        length = x.shape[1]
        y = self.norm1(x).unflatten(0, (-1, self.together)).flatten(1, 2)
        x = x + self.attn1(y, y).unflatten(1, (self.together, length)).flatten(0, 1)
        x = x + self.attn2(self.norm2(x), context)
        return x + self.ff(self.norm3(x))


class SpatialTransformer(nn.Module):
    """Stable Diffusion 1 projects by convolutions; XL has several blocks."""

    def __init__(self, width: int, kind: Kind) -> None:
        super().__init__()
        self.norm = groups(width, 1e-6)
        self.convolves = kind == "sd1"
        project = (
            (lambda: nn.Conv2d(width, width, 1)) if self.convolves else (lambda: nn.Linear(width, width))
        )
        self.proj_in, self.proj_out = project(), project()
        depth = 2 if kind == "xl" else 1
        self.transformer_blocks = nn.ModuleList([BasicTransformerBlock(width, kind) for _ in range(depth)])

    def forward(self, x: Tensor, context: Tensor) -> Tensor:
        y = self.norm(x)
        y = (
            self.proj_in(y).flatten(2).transpose(1, 2)
            if self.convolves
            else self.proj_in(y.flatten(2).transpose(1, 2))
        )
        for block in self.transformer_blocks:
            y = block(y, context)
        if self.convolves:
            return x + self.proj_out(y.transpose(1, 2).reshape(x.shape))
        return x + self.proj_out(y).transpose(1, 2).reshape(x.shape)


class Downsample(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.op = nn.Conv2d(width, width, 3, stride=2, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.op(x)


class Upsample(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(width, width, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(F.interpolate(x, scale_factor=2))


def sinusoids(values: Tensor, width: int) -> Tensor:
    half = width // 2
    angles = values[..., None] * torch.exp(-math.log(10000) * torch.arange(half) / half)
    return torch.cat([angles.cos(), angles.sin()], -1)


def run(layers: Any, x: Tensor, embedding: Tensor, context: Tensor) -> Tensor:
    for layer in layers:
        if isinstance(layer, ResBlock):
            x = layer(x, embedding)
        elif isinstance(layer, SpatialTransformer):
            x = layer(x, context)
        else:
            x = layer(x)
    return x


class UNet(nn.Module):
    """Attention in the first level; XL's is in the second alone."""

    def __init__(self, kind: Kind) -> None:
        super().__init__()
        a, b = CHANNELS

        def attended(width: int, block: nn.Module) -> list[nn.Module]:
            first = width == a
            return [block, SpatialTransformer(width, kind)] if first != (kind == "xl") else [block]

        self.time_embed = nn.Sequential(nn.Linear(a, 4 * a), nn.SiLU(), nn.Linear(4 * a, 4 * a))
        if kind == "mvdream":
            self.camera_embed = nn.Sequential(nn.Linear(16, 4 * a), nn.SiLU(), nn.Linear(4 * a, 4 * a))
        if kind == "xl":
            width = SUMMARY + 6 * 256
            self.label_emb = nn.Sequential(
                nn.Sequential(nn.Linear(width, 4 * a), nn.SiLU(), nn.Linear(4 * a, 4 * a))
            )
        self.input_blocks = nn.ModuleList(
            [
                nn.ModuleList([nn.Conv2d(4, a, 3, padding=1)]),
                nn.ModuleList(attended(a, ResBlock(a, a))),
                nn.ModuleList([Downsample(a)]),
                nn.ModuleList(attended(b, ResBlock(a, b))),
            ]
        )
        self.middle_block = nn.ModuleList([ResBlock(b, b), SpatialTransformer(b, kind), ResBlock(b, b)])
        self.output_blocks = nn.ModuleList(
            [
                nn.ModuleList(attended(b, ResBlock(b + b, b))),
                nn.ModuleList([*attended(b, ResBlock(b + a, b)), Upsample(b)]),
                nn.ModuleList(attended(a, ResBlock(b + a, a))),
                nn.ModuleList(attended(a, ResBlock(a + a, a))),
            ]
        )
        self.out = nn.Sequential(groups(a), nn.SiLU(), nn.Conv2d(a, 4, 3, padding=1))

    def forward(self, x: Tensor, timesteps: Tensor, context: Tensor, other: Tensor | None = None) -> Tensor:
        """other: MVDream's camera, or XL's summary and embedded sizes."""
        embedding = self.time_embed(sinusoids(timesteps, CHANNELS[0]))
        if other is not None:
            embedding = embedding + (self.label_emb if hasattr(self, "label_emb") else self.camera_embed)(
                other
            )
        kept = []
        for block in self.input_blocks:
            x = run(block, x, embedding, context)
            kept.append(x)
        x = run(self.middle_block, x, embedding, context)
        for block in self.output_blocks:
            x = run(block, torch.cat([x, kept.pop()], 1), embedding, context)
        return self.out(x)


class ResnetBlock(nn.Module):
    """The autoencoder's."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = groups(inputs, 1e-6), groups(outputs, 1e-6)
        self.conv1 = nn.Conv2d(inputs, outputs, 3, padding=1)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1)
        if inputs != outputs:
            self.nin_shortcut = nn.Conv2d(inputs, outputs, 1)

    def forward(self, x: Tensor) -> Tensor:
        h = self.conv2(F.silu(self.norm2(self.conv1(F.silu(self.norm1(x))))))
        return h + (self.nin_shortcut(x) if hasattr(self, "nin_shortcut") else x)


class AttnBlock(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = groups(width, 1e-6)
        self.q, self.k, self.v, self.proj_out = (nn.Conv2d(width, width, 1) for _ in range(4))

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm(x)
        q, k, v = (part(y).flatten(2).transpose(1, 2) for part in (self.q, self.k, self.v))
        seen = (q @ k.transpose(1, 2) / math.sqrt(q.shape[-1])).softmax(-1) @ v
        return x + self.proj_out(seen.transpose(1, 2).reshape(x.shape))


class Mid(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.block_1, self.attn_1, self.block_2 = (
            ResnetBlock(width, width),
            AttnBlock(width),
            ResnetBlock(width, width),
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.block_2(self.attn_1(self.block_1(x)))


class Level(nn.Module):
    def __init__(self, widths: list[tuple[int, int]], down: bool = False, up: bool = False) -> None:
        super().__init__()
        self.block = nn.ModuleList(ResnetBlock(a, b) for a, b in widths)
        last = widths[-1][1]
        if down:
            self.downsample = nn.Module()
            self.downsample.conv = nn.Conv2d(last, last, 3, stride=2)
        if up:
            self.upsample = nn.Module()
            self.upsample.conv = nn.Conv2d(last, last, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        for block in self.block:
            x = block(x)
        if hasattr(self, "downsample"):
            x = self.downsample.conv(F.pad(x, (0, 1, 0, 1)))  # pyright: ignore[reportCallIssue]
        if hasattr(self, "upsample"):
            x = self.upsample.conv(F.interpolate(x, scale_factor=2))  # pyright: ignore[reportCallIssue]
        return x


class Encoder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv_in = nn.Conv2d(3, 32, 3, padding=1)
        self.down = nn.ModuleList([*(Level([(32, 32)], down=True) for _ in range(3)), Level([(32, 64)])])
        self.mid = Mid(64)
        self.norm_out, self.conv_out = groups(64, 1e-6), nn.Conv2d(64, 8, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv_in(x)
        for level in self.down:
            x = level(x)
        return self.conv_out(F.silu(self.norm_out(self.mid(x))))


class Decoder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv_in = nn.Conv2d(4, 64, 3, padding=1)
        self.mid = Mid(64)
        same = [(32, 32), (32, 32)]
        self.up = nn.ModuleList(
            [
                Level(same),
                Level(same, up=True),
                Level([(64, 32), (32, 32)], up=True),
                Level([(64, 64), (64, 64)], up=True),
            ]
        )
        self.norm_out, self.conv_out = groups(32, 1e-6), nn.Conv2d(32, 3, 3, padding=1)

    def forward(self, z: Tensor) -> Tensor:
        x = self.mid(self.conv_in(z))
        for level in reversed(list(self.up)):
            x = level(x)
        return self.conv_out(F.silu(self.norm_out(x)))


class Autoencoder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.encoder, self.decoder = Encoder(), Decoder()
        self.quant_conv, self.post_quant_conv = nn.Conv2d(8, 8, 1), nn.Conv2d(4, 4, 1)


class Block(nn.Module):
    """open_clip's residual block."""

    def __init__(self) -> None:
        super().__init__()
        self.ln_1, self.ln_2 = nn.LayerNorm(CONTEXT), nn.LayerNorm(CONTEXT)
        self.attn = nn.MultiheadAttention(CONTEXT, 1, batch_first=True)
        self.mlp = nn.Sequential()
        self.mlp.add_module("c_fc", nn.Linear(CONTEXT, 128))
        self.mlp.add_module("gelu", nn.GELU())
        self.mlp.add_module("c_proj", nn.Linear(128, CONTEXT))


class TextTower(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.token_embedding = nn.Embedding(TOKENS, CONTEXT)
        self.positional_embedding = nn.Parameter(torch.randn(LENGTH, CONTEXT))
        self.transformer = nn.Module()
        self.transformer.resblocks = nn.ModuleList(Block() for _ in range(3))
        self.ln_final = nn.LayerNorm(CONTEXT)
        self.text_projection = nn.Parameter(torch.randn(CONTEXT, 8))
        self.logit_scale = nn.Parameter(torch.tensor(1.0))

    def penultimate(self, ids: Tensor) -> Tensor:
        """The states after all layers but the last, normalised, as Stable Diffusion 2 has them."""
        x = self.token_embedding(ids) + self.positional_embedding[: ids.shape[1]]
        mask = torch.full((ids.shape[1],) * 2, float("-inf")).triu(1)
        for block in list(self.transformer.resblocks)[:-1]:  # pyright: ignore[reportArgumentType]
            y = block.ln_1(x)
            x = x + block.attn(y, y, y, need_weights=False, attn_mask=mask)[0]
            x = x + block.mlp(block.ln_2(x))
        return self.ln_final(x)

    def whole(self, ids: Tensor) -> tuple[Tensor, Tensor]:
        """XL's: the states before the last layer, as they are, and the projected state at the end token."""
        x = self.token_embedding(ids) + self.positional_embedding[: ids.shape[1]]
        mask = torch.full((ids.shape[1],) * 2, float("-inf")).triu(1)
        states = x
        for block in self.transformer.resblocks:  # pyright: ignore
            states = x
            y = block.ln_1(x)
            x = x + block.attn(y, y, y, need_weights=False, attn_mask=mask)[0]
            x = x + block.mlp(block.ln_2(x))
        end = (ids == TOKENS - 1).int().argmax(1)
        return states, self.ln_final(x)[torch.arange(len(ids)), end] @ self.text_projection


def own_clip() -> CLIPTextModel:
    """OpenAI's text tower, which is in these files by transformers' names."""
    return CLIPTextModel(
        CLIPTextConfig(
            vocab_size=TOKENS,
            hidden_size=CONTEXT,
            intermediate_size=128,
            num_hidden_layers=3,
            num_attention_heads=1,
            max_position_embeddings=LENGTH,
            bos_token_id=TOKENS - 2,
            eos_token_id=TOKENS - 1,
            pad_token_id=1,
        )
    )


class SingleFile(nn.Module):
    """The names at the top of the original checkpoints."""

    def __init__(self, kind: Kind = "mvdream") -> None:
        super().__init__()
        torch.manual_seed(0)
        self.model = nn.Module()
        self.model.diffusion_model = UNet(kind)
        self.first_stage_model = Autoencoder()
        self.cond_stage_model = nn.Module()
        if kind == "sd1":
            self.cond_stage_model.transformer = own_clip()
        elif kind == "xl":
            del self.cond_stage_model
            first, second = nn.Module(), nn.Module()
            first.transformer, second.model = own_clip(), TextTower()
            self.conditioner = nn.Module()
            self.conditioner.embedders = nn.ModuleList([first, second])
        else:
            self.cond_stage_model.model = TextTower()
        self.register_buffer("alphas_cumprod", torch.ones(1000))
        for name, value in self.named_parameters():  # norms that do something
            if value.ndim == 1:
                nn.init.normal_(value, 1.0 if name.endswith("weight") else 0.0, 0.2)

    @property
    def unet(self) -> Any:
        return self.model.diffusion_model

    def published(self) -> dict[str, Tensor]:
        """As the files have it: transformers' older names for CLIP's tower, and a buffer of positions."""
        state = {}
        for name, value in self.state_dict().items():
            for prefix in ("cond_stage_model.transformer.", "conditioner.embedders.0.transformer."):
                if name.startswith(prefix) and not name.startswith(f"{prefix}text_model."):
                    name = f"{prefix}text_model.{name.removeprefix(prefix)}"
            state[name] = value
            if name.endswith("text_model.embeddings.position_embedding.weight"):
                state[name.replace("position_embedding.weight", "position_ids")] = torch.arange(LENGTH)[None]
        return state


@pytest.fixture(scope="module")
def theirs() -> SingleFile:
    return SingleFile().eval()


@torch.no_grad()
def test_the_unet_predicts_what_the_original_predicts(theirs: SingleFile) -> None:
    unet, *_ = parts(theirs.state_dict())
    x, context = torch.randn(2 * VIEWS, 4, 16, 16), torch.randn(2 * VIEWS, LENGTH, CONTEXT)
    t, camera = torch.randint(0, 1000, (2 * VIEWS,)), torch.randn(2 * VIEWS, 16)
    expected = theirs.unet(x, t, context, camera)  # pyright: ignore[reportCallIssue]
    from rewardsds.priors.multiview import enable_multiview_attention, is_multiview

    assert is_multiview(unet)
    enable_multiview_attention(unet)
    ours = unet(x, t, context, class_labels=camera, cross_attention_kwargs={"views": VIEWS}).sample
    torch.testing.assert_close(ours, expected, atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_the_autoencoder_is_the_original(theirs: SingleFile) -> None:
    _, vae, _, scheduler = parts(theirs.state_dict())
    pictures, latents = torch.randn(2, 3, 16, 16), torch.randn(2, 4, 8, 8)
    own = theirs.first_stage_model
    mean = own.quant_conv(own.encoder(pictures))[:, :4]  # pyright: ignore[reportCallIssue]
    torch.testing.assert_close(vae.encode(pictures).latent_dist.mode(), mean, atol=1e-5, rtol=1e-5)  # pyright: ignore
    decoded = own.decoder(own.post_quant_conv(latents))  # pyright: ignore[reportCallIssue]
    torch.testing.assert_close(vae.decode(latents).sample, decoded, atol=1e-5, rtol=1e-5)  # pyright: ignore
    assert vae.config["scaling_factor"] == 0.18215
    # The first and the last of Stable Diffusion's ᾱ, from its betas.
    assert float(scheduler.alphas_cumprod[0]) == pytest.approx(1 - 0.00085, abs=1e-6)
    assert float(scheduler.alphas_cumprod[-1]) == pytest.approx(0.0047, abs=1e-4)


@torch.no_grad()
def test_the_text_is_read_as_the_original_reads_it(theirs: SingleFile) -> None:
    (encoder,) = parts(theirs.state_dict()).text_encoders
    ids = torch.randint(2, TOKENS, (2, LENGTH))
    expected = theirs.cond_stage_model.model.penultimate(ids)  # pyright: ignore
    torch.testing.assert_close(encoder(ids).last_hidden_state, expected, atol=1e-5, rtol=1e-5)


def test_the_parts_make_a_prior(theirs: SingleFile) -> None:
    unet, vae, (encoder,), scheduler = parts(theirs.state_dict(), image_size=64)
    prior = DiffusionPrior(unet, vae, encoder, None, scheduler)
    assert prior.multiview
    assert (prior.views, prior.latent_shape, prior.image_size) == (4, (4, 8, 8), 64)


def test_the_names_of_the_community_port_load_too(theirs: SingleFile) -> None:
    unet = theirs.unet
    assert isinstance(unet, UNet)
    ported = latent_unet(unet.state_dict(), 32)
    whole, *_ = parts(theirs.state_dict())
    for name, value in ported.state_dict().items():
        assert torch.equal(value, whole.state_dict()[name])


@torch.no_grad()
@pytest.mark.parametrize("kind", ["sd1", "sd2"])
def test_stable_diffusion_1_and_2(kind: Kind) -> None:
    theirs = SingleFile(kind).eval()
    unet, vae, (encoder,), scheduler = parts(theirs.published(), 64, "v_prediction")
    x, context = torch.randn(2, 4, 16, 16), torch.randn(2, LENGTH, CONTEXT)
    t = torch.tensor([3, 700])
    torch.testing.assert_close(unet(x, t, context).sample, theirs.unet(x, t, context), atol=1e-5, rtol=1e-5)
    ids = torch.randint(2, TOKENS, (2, LENGTH))
    read = encoder(ids).last_hidden_state
    own = theirs.cond_stage_model
    expected = own.transformer(ids).last_hidden_state if kind == "sd1" else own.model.penultimate(ids)  # pyright: ignore
    torch.testing.assert_close(read, expected, atol=1e-5, rtol=1e-5)
    prior = DiffusionPrior(unet, vae, encoder, None, scheduler)
    assert (prior.sees_cameras, prior.image_size, prior.prediction_type) == (False, 64, "v_prediction")


@pytest.mark.parametrize(
    "kind, prediction_type, pixels",
    [
        ("sd2", "v_prediction", 768),
        ("sd2", "epsilon", 512),
        ("sd2", None, 768),  # a random network gives no noise back
        ("sd1", "v_prediction", 512),
        ("mvdream", None, 256),
    ],
)
def test_the_pixels_that_a_file_was_trained_at(kind: Kind, prediction_type: Any, pixels: int) -> None:
    state = SingleFile(kind).published()
    for asked, expected in ((None, pixels), (64, 64)):
        made = parts(state, asked, prediction_type)
        assert prior_from_parts(made, (None,)).image_size == expected


@torch.no_grad()
def test_xl_from_a_file(tmp_path: Path) -> None:
    theirs = SingleFile("xl").eval()
    save_file(
        {name: value.contiguous() for name, value in theirs.published().items()}, tmp_path / "xl.safetensors"
    )
    for name in ("tokenizer", "tokenizer_2"):
        tiny_models.tokenizer().save_pretrained(tmp_path / "companion" / name)
    cpu = torch.device("cpu")
    prior = prior_from_file(tmp_path / "xl.safetensors", cpu, torch.float32, 64, str(tmp_path / "companion"))
    assert isinstance(prior, SDXLPrior)
    assert (prior.latent_shape, prior.image_size) == ((4, 8, 8), 64)
    ids = prior.tokenizer("a red car", padding="max_length", max_length=LENGTH, return_tensors="pt")[
        "input_ids"
    ]
    embedders: Any = theirs.conditioner.embedders
    first, second = embedders
    one = first.transformer(ids, output_hidden_states=True).hidden_states[-2]
    tower = second.model
    states, summary = tower.whole(ids)
    condition = prior.condition(["a red car"], "black")
    torch.testing.assert_close(condition.embeddings[0], torch.cat([one, states], -1)[0], atol=1e-5, rtol=1e-5)
    assert condition.extras is not None
    torch.testing.assert_close(condition.extras["pooled"], summary, atol=1e-5, rtol=1e-5)

    noisy = torch.randn(1, 1, 1, 4, 8, 8)
    t = torch.tensor([321])
    sizes = sinusoids(torch.tensor([64.0, 64, 0, 0, 64, 64]), 256).flatten()[None]
    expected = theirs.unet(noisy[0, 0], t, condition.embeddings, torch.cat([summary, sizes], -1))
    ours = prior.predict(noisy, t, condition, unconditional=False).conditional
    torch.testing.assert_close(ours[0, 0], expected, atol=1e-4, rtol=1e-4)


def test_an_xl_says_what_it_predicts_and_how_its_noise_ends(tmp_path: Path) -> None:
    """As published: two empty tensors beside the weights."""
    state = SingleFile("xl").published()
    assert parts(state).scheduler.config["prediction_type"] == "epsilon"
    found = parts({**state, "v_pred": torch.zeros(0)}).scheduler
    assert (found.config["prediction_type"], found.config["rescale_betas_zero_snr"]) == (
        "v_prediction",
        False,
    )
    file = tmp_path / "xl.safetensors"
    save_file({**state, "v_pred": torch.zeros(0), "ztsnr": torch.zeros(0)}, file)
    tiny_models.tokenizer().save_pretrained(tmp_path / "companion")
    options: Any = (torch.device("cpu"), torch.float32, 64, str(tmp_path / "companion"))
    prior = prior_from_file(file, *options)
    assert prior.prediction_type == "v_prediction"
    assert float(prior.alphas_cumprod[-1]) < 1e-6
    folder = convert("stable-diffusion", file, tmp_path / "folder", str(tmp_path / "companion"), half=False)
    converted = load_prior(folder, "cpu", image_size=64)
    noisy, t = torch.randn(1, 1, 1, 4, 8, 8), torch.tensor([700])
    said = [one.predict(noisy, t, one.condition(["a red car"])).conditional for one in (prior, converted)]
    torch.testing.assert_close(*said)
    with pytest.raises(ValueError, match="it has v_pred besides"):
        parts({**SingleFile("sd1").published(), "v_pred": torch.zeros(0)})


def test_a_file_is_a_prior_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    theirs = SingleFile("sd1").eval()
    torch.save({"state_dict": theirs.published(), "epoch": 3}, tmp_path / "model.ckpt")
    with pytest.raises(ValueError, match=r"tokenizer of stable-diffusion-v1-5/.*--companion FOLDER"):
        load_prior(tmp_path / "model.ckpt", "cpu")
    tiny_models.tokenizer().save_pretrained(tmp_path / "tokenizer")
    monkeypatch.setattr("rewardsds.priors.load.SD15", str(tmp_path))
    prior = load_prior(tmp_path / "model.ckpt", "cpu", image_size=64)
    found = prior.predict(torch.randn(1, 1, 1, 4, 8, 8), torch.tensor([9]), prior.condition(["a red car"]))
    assert found.conditional.isfinite().all()


class Answers(nn.Module):
    """A UNet that answers v or ε for pictures that it knows nothing of."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind
        self.config = {"sample_size": 16, "in_channels": 4, "cross_attention_dim": 8}

    def forward(self, noisy: Tensor, timesteps: Tensor, states: Tensor) -> Any:
        alpha, sigma = 0.0683, 0.9977  # Stable Diffusion's at 999
        x0 = 0.5 * torch.ones_like(noisy)
        noise = (noisy - alpha * x0) / sigma
        said = noise if self.kind == "epsilon" else alpha * noise - sigma * x0
        return SimpleNamespace(sample=said)


@pytest.mark.parametrize("kind", ["epsilon", "v_prediction"])
def test_what_a_network_predicts_is_found(kind: str) -> None:
    assert found_prediction_type(Answers(kind)) == kind


def test_the_toyboxs_network_is_found_to_predict_noise() -> None:
    network = load_prior("toybox", "cpu").network

    class WithoutPose:
        config = network.config

        def __call__(self, *given: Tensor) -> Any:
            return network(*given, class_labels=torch.zeros(1, 16))

    assert found_prediction_type(WithoutPose()) == "epsilon"


Break = Callable[[dict[str, Tensor]], object]
AT, VAE, TEXT = "model.diffusion_model", "first_stage_model", "cond_stage_model.model"


@pytest.mark.parametrize(
    "damage, told",
    [
        (lambda s: s.clear(), "nothing in it begins with model.diffusion_model., first_stage_model."),
        (lambda s: s.pop(f"{AT}.camera_embed.0.weight"), "a prior's UNet: it lacks label_emb.0.0.weight"),
        (lambda s: s.pop(f"{AT}.out.2.bias"), "a prior's UNet: it lacks conv_out.bias"),
        (lambda s: s.update({f"{AT}.extra.weight": torch.zeros(3)}), "it has extra.weight besides"),
        (lambda s: s.pop("first_stage_model.quant_conv.bias"), "autoencoder: it lacks quant_conv.bias"),
        (lambda s: s.pop("cond_stage_model.model.positional_embedding"), "lacks positional_embedding"),
        (
            lambda s: s.pop(f"{VAE}.encoder.down.0.downsample.conv.bias"),
            "lacks encoder.down_blocks.0.downsam",
        ),
        (lambda s: s.update({f"{AT}.out.2.weight": torch.zeros(3)}), r"UNet: out.2.weight has shape \(3,\)"),
        (lambda s: s.update({f"{VAE}.decoder.conv_in.weight": torch.zeros(4, 0)}), "expected 4 axes, none"),
        (
            lambda s: s.update({f"{TEXT}.token_embedding.weight": torch.zeros(8)}),
            "text encoder: token_embedding",
        ),
    ],
)
def test_what_is_wrong_with_a_checkpoint_is_told(theirs: SingleFile, damage: Break, told: str) -> None:
    state = dict(theirs.state_dict())
    damage(state)
    with pytest.raises(ValueError, match=told):
        parts(state)


def test_a_folder_of_the_community_port_is_the_same_prior(theirs: SingleFile, tmp_path: Path) -> None:
    unet, vae, (encoder,), scheduler = parts(theirs.state_dict(), image_size=256)
    for part, model in (("vae", vae), ("text_encoder", encoder), ("scheduler", scheduler)):
        model.save_pretrained(tmp_path / part)  # pyright: ignore[reportArgumentType]
    tiny_models.tokenizer().save_pretrained(tmp_path / "tokenizer")
    (tmp_path / "unet").mkdir()
    # Its configuration is of its own class, and its weights have their original names.
    (tmp_path / "unet" / "config.json").write_text(
        json.dumps({"_class_name": "MultiViewUNetModel", "image_size": 32, "camera_dim": 16})
    )
    own = theirs.unet
    assert isinstance(own, UNet)
    weights = {name: value.contiguous() for name, value in own.state_dict().items()}
    save_file(weights, tmp_path / "unet" / "diffusion_pytorch_model.safetensors")
    ported = load_prior(tmp_path, "cpu")
    assert (ported.views, ported.image_size) == (4, 256)
    ours = DiffusionPrior(unet, vae, encoder, tiny_models.tokenizer(), scheduler)
    noisy = torch.randn(1, 1, 4, *ours.latent_shape, generator=torch.Generator().manual_seed(0))
    cameras = torch.eye(4).expand(1, 4, 4, 4)
    said = [
        prior.predict(noisy, torch.tensor([300]), prior.condition(["a red car"], "", cameras))
        for prior in (ported, ours)
    ]
    assert torch.equal(said[0].conditional, said[1].conditional)


@pytest.mark.parametrize(
    "name, told",
    [
        (
            "model.diffusion_model.joint_blocks.0.x_block.attn.qkv.weight",
            "Stable Diffusion 3.*diffusers layout",
        ),
        ("double_blocks.0.img_attn.qkv.weight", "FLUX.*diffusers layout"),
        ("conditioner.embedders.0.model.ln_final.weight", "refiner.*base model"),
        ("control_model.zero_convs.0.0.weight", "ControlNet"),
    ],
)
def test_files_of_other_models_are_called_by_their_names(name: str, told: str) -> None:
    with pytest.raises(ValueError, match=told):
        parts({name: torch.zeros(2, 2)})
