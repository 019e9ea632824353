"""What all latent diffusion and flow models share: autoencoder, cached texts, and one network call for all axes."""

from __future__ import annotations

import re
import warnings
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import torch
import torch.nn.functional as F
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.autoencoders.autoencoder_tiny import AutoencoderTiny
from torch import Tensor, nn
from torch.utils._pytree import tree_map_only
from typing_extensions import Self

from rewardsds.memory import Chunks, run_again
from rewardsds.priors.base import Condition, Prediction
from rewardsds.priors.fit import require_vocabularies
from rewardsds.priors.parametrisation import (
    PARAMETRISATIONS,
    Parametrisation,
    network_input,
    to_noise,
)
from rewardsds.prompts import Texts

MISTRUSTED = "the scheduler's prediction_type is {!r}, it must be one of {}"
LOWEST = 1e-8
"""Of ᾱ."""


@dataclass(frozen=True)
class Read:
    """A text as the network takes it: states (T, C), and a summary (P,) where it wants one too."""

    states: Tensor
    pooled: Tensor | None = None


class LatentPrior(ABC):
    """A frozen prior in latent space: what a new kind of network has to say is how it reads texts and how it is called.

    Latents go in and come out as float32, whatever the network's precision. Weights never receive gradient.
    """

    tokenizer: Any
    """Of the first text encoder: which words does it know?"""
    distilled_guidance = 3.5
    """Of networks that take guidance as an input (FLUX dev)."""
    multiple = 1
    """The sides of a latent are multiples of this."""

    def __init__(
        self,
        network: Any,
        vae: AutoencoderTiny | AutoencoderKL,
        alphas_cumprod: Tensor,
        prediction_type: Parametrisation,
        image_size: int | None = None,
    ) -> None:
        """image_size: pixels of its pictures; None: what the network was trained at. Text encoders are there already.

        Raises ValueError where the parts were not made for each other.
        """
        if prediction_type not in PARAMETRISATIONS:
            raise ValueError(MISTRUSTED.format(prediction_type, ", ".join(PARAMETRISATIONS)))
        self.prediction_type: Parametrisation = prediction_type
        self.network = frozen(network)
        # Convolutions of these sizes run 30% faster with channels last.
        self.vae = frozen(vae).to(memory_format=torch.channels_last)
        factor = downsampling(vae)
        if image_size is not None and (image_size <= 0 or image_size % (factor * self.multiple)):
            raise ValueError(
                f"this prior makes pictures of a multiple of {factor * self.multiple} pixels, got {image_size}"
            )
        self._size = self._own_size() if image_size is None else image_size // factor
        self._check_fit()
        # Schedules that end in pure noise would leave nothing to read x̂0 from.
        levels = alphas_cumprod.to(device=self._like.device, dtype=torch.float32)
        self._alphas_cumprod = levels.clamp_min(LOWEST)
        self.in_chunks(None)
        self._read: dict[tuple[str, bool], Read] = {}
        self._network_evaluations = 0

    @property
    @abstractmethod
    def text_encoders(self) -> Sequence[Any]:
        """The modules that read texts."""

    @property
    @abstractmethod
    def tokenizers(self) -> Sequence[Any]:
        """Theirs, in the same order; None of a checkpoint without one."""

    @property
    def text_lengths(self) -> Sequence[int]:
        """Tokens of a text that each text encoder reads."""
        return [self._length(*pair) for pair in zip(self.tokenizers, self.text_encoders, strict=True)]

    def _length(self, tokenizer: Any, encoder: Any) -> int:
        return min(tokenizer.model_max_length, encoder.config.max_position_embeddings)

    @property
    @abstractmethod
    def text_width(self) -> int:
        """Numbers in each of the states that a text is read as."""

    @property
    def summary_width(self) -> int | None:
        """Numbers in the summary of a text, where the network's configuration says how many it takes."""
        return None

    @abstractmethod
    def _read_text(self, text: str, negative: bool) -> Read:
        """negative: whether it is the other branch's, which some models treat in a way of its own."""

    @abstractmethod
    def _call(self, latents: Tensor, timesteps: Tensor, text: Read, inputs: dict[str, Any]) -> Tensor:
        """The network's output (M, D, h, w) for latents (M, D, h, w) in its precision, timesteps (M,), texts (M, …).

        inputs: what `_inputs` gave.
        """

    def _check_fit(self) -> None:
        config = self.network.config
        require_vocabularies(self.tokenizers, self.text_encoders)
        if any(self.vae.config.get(key) is not None for key in ("latents_mean", "latents_std")):
            raise ValueError(
                "this prior's autoencoder has means and deviations of its own for latents (latents_mean, latents_std), "
                "as those of models with EDM's noise: give a model such as Stable Diffusion XL"
            )
        taken, made = self.latent_shape[0], int(self.vae.config["latent_channels"])
        returned = (config.get("out_channels") or config["in_channels"]) * taken // config["in_channels"]
        if not taken == returned == made:
            raise ValueError(
                f"this prior's network takes {taken} channels and returns {returned}, its autoencoder's latents have "
                f"{made}: give a model that makes pictures from text alone, not one for inpainting, depth or editing"
            )
        read = config["joint_attention_dim" if "joint_attention_dim" in config else "cross_attention_dim"]
        summary = config.get("pooled_projection_dim")
        for what, wanted, width in (
            ("texts", read, self.text_width),
            ("summaries", summary, self.summary_width),
        ):
            if wanted != width:
                raise ValueError(
                    f"this prior's network reads {what} of width {wanted}, its text encoders write {width}: give it "
                    "the text encoders that it was trained with"
                )

    def _own_size(self) -> int:
        """Height and width of the latents that the network was trained at."""
        return int(self.network.config["sample_size"])

    @property
    def sees_cameras(self) -> bool:
        """Whether the network takes poses itself."""
        return False

    @property
    def time_embedding(self) -> Any:
        """The network's embedding of timesteps, (M, …) → (M, C)."""
        return self.network.time_embedding

    def _inputs(self, condition: Condition, axes: tuple[int, int, int, int]) -> dict[str, Any]:
        """What a network takes beside, for axes (branches, N, B, V); tensors have a row for each of the M latents."""
        return {}

    @property
    def latent_shape(self) -> tuple[int, int, int]:
        return int(self.network.config["in_channels"]), self._size, self._size

    @property
    def image_size(self) -> int:
        return self._size * downsampling(self.vae)

    @property
    def views(self) -> int:
        return 1

    @property
    def alphas_cumprod(self) -> Tensor:
        return self._alphas_cumprod

    @property
    def network_evaluations(self) -> int:
        return self._network_evaluations

    def encode(self, images: Tensor) -> Tensor:
        """(..., 3, H, W) in [0, 1] → scaled latents (..., D, h, w), with gradient; a posterior's mean."""
        flat = images.flatten(0, -4)
        if flat.shape[-2:] != (self.image_size, self.image_size):
            flat = F.interpolate(
                flat, (self.image_size, self.image_size), mode="bilinear", antialias=True, align_corners=False
            )
        pixels = (2.0 * flat - 1.0).to(self.vae.dtype)
        latents = self._encode_chunks(lambda rows: self._encoded(pixels[rows]), len(pixels))
        scaled = (latents.float() - self._shift) * self.vae.config["scaling_factor"]
        return scaled.unflatten(0, images.shape[:-3])

    def decode(self, latents: Tensor) -> Tensor:
        """(..., D, h, w) → (..., 3, H, W) clamped to [0, 1]; with gradient where the latents carry it."""
        flat = latents.flatten(0, -4) / self.vae.config["scaling_factor"] + self._shift
        images = self._decode_chunks(
            lambda rows: self._decoded(flat[rows].to(self.vae.dtype)), len(flat)
        ).float()
        return (0.5 * images + 0.5).clamp(0.0, 1.0).unflatten(0, latents.shape[:-3])

    def _encoded(self, pixels: Tensor) -> Tensor:
        encoded: Any = self.vae.encode(pixels)
        return encoded.latents if isinstance(self.vae, AutoencoderTiny) else encoded.latent_dist.mode()

    def _decoded(self, latents: Tensor) -> Tensor:
        decoded: Any = self.vae.decode(latents)  # pyright: ignore[reportArgumentType]
        return decoded.sample

    @property
    def _shift(self) -> float:
        """What SD3's and FLUX's autoencoders take off their latents."""
        return float(self.vae.config.get("shift_factor") or 0.0)

    def condition(
        self,
        prompts: Texts,
        negative_prompt: str | Texts = "",
        camera_to_world: Tensor | None = None,
    ) -> Condition:
        """B prompts → text states (B, T, C), or B times V → (B, V, T, C), kept in a cache.

        camera_to_world: (B, V, 4, 4) or None.
        """
        if camera_to_world is not None and (
            camera_to_world.ndim != 4
            or tuple(camera_to_world.shape[2:]) != (4, 4)
            or len(camera_to_world) != len(prompts)
        ):
            raise ValueError(
                f"camera_to_world must have shape (items, views, 4, 4) with {len(prompts)} items, "
                f"got {tuple(camera_to_world.shape)}"
            )
        negatives = [negative_prompt] * len(prompts) if isinstance(negative_prompt, str) else negative_prompt
        if len(negatives) != len(prompts):
            raise ValueError(
                f"{len(prompts)} prompts need as many negative prompts, or one, got {len(negatives)}"
            )
        counts = {len(text) for text in (*prompts, *negatives) if not isinstance(text, str)}
        if camera_to_world is not None and counts:
            counts.add(camera_to_world.shape[1])
        if len(counts) > 1:
            raise ValueError(
                f"views that have texts of their own are as many for every prompt, negative prompt and camera, got "
                f"{', '.join(map(str, sorted(counts)))}"
            )
        views = next(iter(counts), None)

        def read(texts: Texts, negative: bool) -> Read:
            each = [[text] * views if views and isinstance(text, str) else text for text in texts]
            return _stack([self._of_item(text, negative) for text in each])

        wanted, unwanted = read(prompts, False), read(negatives, True)
        extras = None
        if wanted.pooled is not None:
            extras = {"pooled": wanted.pooled, "negative_pooled": unwanted.pooled}
        return Condition(prompts, wanted.states, unwanted.states, camera_to_world, extras)

    def predict(
        self,
        noisy: Tensor,
        timesteps: Tensor,
        condition: Condition,
        unconditional: bool = True,
        beside_time: Tensor | None = None,
    ) -> Prediction:
        """ε̂ for (N, B, V, D, h, w) at timesteps (N, B) or (B,): one network call for both guidance branches.

        beside_time: (B, V, C), added to what `time_embedding` gives; None: nothing.
        """
        candidates, items, views = noisy.shape[:3]
        timesteps = timesteps.expand(candidates, items)
        alphas_cumprod = self.alphas_cumprod[timesteps][..., None, None, None, None]
        alpha, sigma = alphas_cumprod.sqrt(), (1.0 - alphas_cumprod).sqrt()
        states, pooled = [condition.embeddings], [(condition.extras or {}).get("pooled")]
        if unconditional:
            states.insert(0, condition.negative_embeddings)
            pooled.insert(0, (condition.extras or {}).get("negative_pooled"))
        axes = (len(states), candidates, items, views)
        dtype = self._like.dtype

        def flat(branches: list[Any], trailing: int) -> Tensor:
            text = torch.stack(branches)[:, None]
            text = text if text.ndim == 4 + trailing else text.unsqueeze(3)
            return text.expand(*axes, *text.shape[4:]).flatten(0, 3).to(dtype)

        latents = network_input(noisy, alpha, sigma, self.prediction_type).expand(len(states), *noisy.shape)
        latents = latents.flatten(0, 3).to(dtype)
        times = timesteps[None, :, :, None].expand(axes).flatten()
        text = Read(flat(states, 2), None if pooled[-1] is None else flat(pooled, 1))
        inputs = self._inputs(condition, axes)
        beside = None if beside_time is None else beside_time.expand(*axes, -1).flatten(0, 3)

        def call(rows: slice) -> Tensor:
            pooled = None if text.pooled is None else text.pooled[rows]
            own = {key: value[rows] if isinstance(value, Tensor) else value for key, value in inputs.items()}
            with self._added_to_time(None if beside is None else beside[rows]):
                return self._call(latents[rows], times[rows], Read(text.states[rows], pooled), own)

        # The views of an item see each other, so that they stay together.
        output = self._network_chunks(call, len(latents), unit=min(views, self.views))
        self._network_evaluations += len(output)
        output = output.float().unflatten(0, axes)
        noise = to_noise(output, noisy, alpha, sigma, self.prediction_type)
        return Prediction(conditional=noise[-1], unconditional=noise[0] if unconditional else None)

    @contextmanager
    def _added_to_time(self, beside: Tensor | None) -> Iterator[None]:
        """What the network's embedding of timesteps gives is so much more."""
        if beside is None:
            yield
            return
        hook = self.time_embedding.register_forward_hook(
            lambda module, given, output: output + beside.to(output.dtype)
        )
        # A compiled network does not see hooks that come later.
        compiled, self.network._compiled_call_impl = self.network._compiled_call_impl, None
        try:
            yield
        finally:
            hook.remove()
            self.network._compiled_call_impl = compiled

    def in_chunks(self, size: int | Literal["auto"] | None) -> None:
        """At most so many pictures in a call of the network or the autoencoder; see `Chunks`."""
        self._network_chunks = Chunks(size)
        self._encode_chunks, self._decode_chunks = Chunks(size, recompute=True), Chunks(size, recompute=True)

    def place_text_encoders(self, offload: bool) -> Self:
        """To where the network is, or offload: see `rest_text_encoders`."""
        if offload:
            self.rest_text_encoders()
        else:
            for encoder in self.text_encoders:
                encoder.to(self._like.device)
        return self

    def rest_text_encoders(self) -> None:
        """Text encoders wait in the CPU's memory; each comes to the network's device for as long as it reads."""
        for encoder in self.text_encoders:
            encoder.to("cpu")
            encoder.register_forward_pre_hook(self._fetch_encoder, with_kwargs=True)
            encoder.register_forward_hook(_send_back, always_call=True)

    def _fetch_encoder(
        self, encoder: nn.Module, given: tuple[Any, ...], named: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        device = self._like.device
        encoder.to(device)
        return tree_map_only(Tensor, lambda value: value.to(device), (given, named))

    def slice_attention(self) -> None:
        """Attention one head after the other: slower, with less memory. Raises ValueError where it cannot."""
        if self.views > 1 or not hasattr(self.network, "set_attention_slice"):
            kind = "a multi-view network" if self.views > 1 else f"a {type(self.network).__name__}"
            raise ValueError(
                f"attention cannot be sliced in {kind}: lower the chunk instead, which saves memory in every network"
            )
        self.network.set_attention_slice("auto")

    def tile_autoencoder(self) -> None:
        """Pictures larger than a tile are encoded and decoded in overlapping tiles, whose seams are blended.

        Where gradient goes back each tile is computed again: all of them together hold more than the whole picture.
        """
        vae: Any = self.vae
        vae.enable_tiling()
        if self.image_size > vae.tile_sample_min_size:
            for part in (vae.encoder, vae.decoder):
                part.forward = partial(run_again, part.forward)

    def compile(self) -> None:
        """Compiles the network at its first call (torch.compile): a wait of minutes, then faster steps."""
        self.network.compile()

    def reads_whole(self, text: str) -> bool:
        """Whether one of the text encoders, at least, reads the text to its end."""
        return self._tokens_and_room(text) is None

    def _tokens_and_room(self, text: str) -> tuple[int, int] | None:
        """Of a text that no text encoder reads to its end: its tokens, and how many of them the one reads that reads
        most. None: it is read whole."""
        rooms = []
        for tokenizer, length in zip(self.tokenizers, self.text_lengths, strict=True):
            tokens = len(tokenizer(text, truncation=False, verbose=False)["input_ids"])
            if tokens <= length:
                return None
            rooms.append((tokens, length))
        return max(rooms, key=lambda room: room[1])

    def unknown_words(self, prompt: str) -> list[str]:
        """Words that the tokenizer maps to its unknown token; byte-pair tokenizers know every word."""
        if not self.tokenizer.is_fast or self.tokenizer.unk_token_id is None:
            return []
        tokens = self.tokenizer(
            prompt, add_special_tokens=False, return_offsets_mapping=True, truncation=False, verbose=False
        )
        pieces = [
            prompt[start:end]
            for token, (start, end) in zip(tokens["input_ids"], tokens["offset_mapping"], strict=True)
            if token == self.tokenizer.unk_token_id
        ]
        words = [piece.strip().lower() for piece in pieces if re.search(r"\w", piece)]
        return list(dict.fromkeys(words))

    @property
    def _like(self) -> Tensor:
        """Has the network's device and dtype; asking the network itself goes through all of it, every time."""
        return next(self.network.parameters())

    def _of_item(self, text: str | Sequence[str], negative: bool) -> Read:
        if not isinstance(text, str):
            return _stack([self._of_item(one, negative) for one in text])
        if (text, negative) not in self._read:
            if (cut := self._tokens_and_room(text)) is not None:
                warnings.warn(
                    f"the prompt has {cut[0]} tokens and the prior reads {cut[1]}: its end is not seen",
                    stacklevel=5,
                )
            with torch.no_grad():
                self._read[text, negative] = self._read_text(text, negative)
        return self._read[text, negative]


def _send_back(encoder: nn.Module, given: Any, read: Any) -> None:
    """After a failure too, which must not leave it where memory is short."""
    encoder.to("cpu")


def _stack(texts: Sequence[Read]) -> Read:
    pooled = [text.pooled for text in texts if text.pooled is not None]
    return Read(torch.stack([text.states for text in texts]), torch.stack(pooled) if pooled else None)


def downsampling(vae: Any) -> int:
    """Pixels for each side of a latent's cell."""
    blocks = vae.config.get("encoder_block_out_channels") or vae.config["block_out_channels"]
    return 2 ** (len(blocks) - 1)


def frozen(module: Any) -> Any:
    return module.eval().requires_grad_(False)
