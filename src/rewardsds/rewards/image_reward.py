"""ImageReward (arXiv 2304.05977): BLIP reads the caption with the picture in view, an MLP scores what it read."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from itertools import pairwise
from os import PathLike
from pathlib import Path
from typing import Annotated, Any, ClassVar

import torch
from pydantic import Field
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers import BlipTextConfig, BlipVisionConfig
from transformers.models.blip.modeling_blip import BlipVisionModel
from transformers.models.blip.modeling_blip_text import BlipTextModel
from typing_extensions import Self

from rewardsds.foreign import load_strictly, read_checkpoint, reading
from rewardsds.pretrained import default_device_and_dtype, quiet_loading, read_tokenizer
from rewardsds.rewards.base import ModelReward
from rewardsds.rewards.clip import CLIP_MEAN, CLIP_STD
from rewardsds.rewards.pictures import square
from rewardsds.rewards.stored import Channels, Count, FileModel, Positive, PositiveChannels, read_model
from rewardsds.rewards.texts import read

MEAN, STD = 0.16717362830052426, 1.0333394966054072
"""Of ImageReward-v1.0's raw scores on its training data."""
WIDTHS = (1024, 128, 64, 16, 1)
"""Of its MLP's layers, which have no activations between them."""
LENGTH = 35


class TowersFile(FileModel):
    """What `ImageRewardNetwork.from_config` takes."""

    vision_config: dict[str, Any]
    text_config: dict[str, Any]
    widths: Annotated[tuple[Count, ...], Field(min_length=1)]
    length: Count


class ImageRewardFile(TowersFile):
    """The `config.json` that `ImageReward.save_pretrained` writes."""

    mean: float
    std: Positive
    image_mean: Channels
    image_std: PositiveChannels


class ImageRewardNetwork(nn.Module):
    """BlipVisionModel, BlipTextModel with cross-attention, and the MLP on the caption's first token."""

    def __init__(
        self, vision: BlipVisionConfig, text: BlipTextConfig, widths: Sequence[int] = WIDTHS
    ) -> None:
        super().__init__()
        if widths[-1] != 1:
            raise ValueError(f"the MLP's last layer gives {widths[-1]} numbers, and a score is one")
        self.vision = BlipVisionModel(vision)
        self.text = BlipTextModel(text, add_pooling_layer=False)
        sizes = [text.hidden_size, *widths]
        self.mlp = nn.Sequential(*[nn.Linear(a, b) for a, b in pairwise(sizes)])
        self.widths = tuple(widths)

    def config(self) -> dict[str, Any]:
        """What `from_config` takes."""
        towers = {"vision_config": self.vision.config.to_dict(), "text_config": self.text.config.to_dict()}
        return {**towers, "widths": list(self.widths)}

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> ImageRewardNetwork:
        """With random weights."""
        vision, text = BlipVisionConfig(**config["vision_config"]), BlipTextConfig(**config["text_config"])
        return cls(vision, text, config["widths"])

    def forward(self, pixels: Tensor, tokens: Tensor, attention_mask: Tensor) -> Tensor:
        """(M, 3, S, S) normalised, (M, T) twice → raw scores (M,)."""
        return self.score(self.vision(pixel_values=pixels).last_hidden_state, tokens, attention_mask)

    def score(self, seen: Tensor, tokens: Tensor, attention_mask: Tensor) -> Tensor:
        """The same from the vision tower's states (M, P, C): one look at a picture serves several captions."""
        return self.mlp(self.read(seen, tokens, attention_mask)).squeeze(-1)

    def read(self, seen: Tensor, tokens: Tensor, attention_mask: Tensor) -> Tensor:
        """The state (M, C) of each caption's first token."""
        return self.text(
            input_ids=tokens,
            attention_mask=attention_mask,
            encoder_hidden_states=seen,
            encoder_attention_mask=torch.ones(seen.shape[:2], dtype=torch.long, device=seen.device),
        ).last_hidden_state[:, 0]


class ImageReward(ModelReward):
    """Standardised scores, about N(0, 1) over the training data, meaned over the views of an item.

    Pictures are resized on the device (bicubic, antialiased; the shorter side, then the middle). Carries gradient.
    """

    network_class: ClassVar[Any] = ImageRewardNetwork
    file_class: ClassVar[type[TowersFile]] = ImageRewardFile

    def __init__(
        self,
        network: ImageRewardNetwork,
        tokenizer: Any,
        mean: float = MEAN,
        std: float = STD,
        image_mean: Sequence[float] = CLIP_MEAN,
        image_std: Sequence[float] = CLIP_STD,
        length: int = LENGTH,
    ) -> None:
        """length: of captions in tokens, longer ones are cut, with a warning."""
        super().__init__()
        self.network = network.eval().requires_grad_(False)
        self.tokenizer = tokenizer
        self.mean, self.std = mean, std
        self.length = length
        device = next(network.parameters()).device
        self._image_mean = torch.tensor(image_mean, device=device).reshape(3, 1, 1)
        self._image_std = torch.tensor(image_std, device=device).reshape(3, 1, 1)
        self._tokens: dict[str, tuple[Tensor, Tensor]] = {}

    def __call__(self, images: Tensor, prompts: Sequence[str]) -> Tensor:
        """images (N, B, V, 3, H, W) in [0, 1], B prompts → (N, B)."""
        if images.ndim != 6 or images.shape[1] != len(prompts):
            raise ValueError(
                f"images must have shape (candidates, items, views, 3, H, W) with one item for each of "
                f"{len(prompts)} prompts, got {tuple(images.shape)}"
            )
        candidates, items, views = images.shape[:3]
        if images.numel() == 0:
            return images.new_zeros(candidates, items)
        flat = images.flatten(0, 2)
        tokens, mask = self._tokens_of(prompts)
        each = torch.arange(items, device=tokens.device).repeat_interleave(views).repeat(candidates)

        def look(rows: slice) -> Tensor:
            return self.network(self._pixels(flat[rows]), tokens[each[rows]], mask[each[rows]])

        scores = self.chunks(look, len(flat))
        scores = (scores.float() - self.mean) / self.std
        return scores.reshape(candidates, items, views).mean(dim=2).to(images.device)

    def _pixels(self, images: Tensor) -> Tensor:
        size: Any = self.network.vision.config.image_size
        images = images.to(self._image_mean.device)
        images = square(images, size)
        dtype = next(self.network.parameters()).dtype
        return ((images - self._image_mean) / self._image_std).to(dtype)

    def to(self, device: torch.device | str) -> None:
        self.network.to(device)
        self._image_mean, self._image_std = self._image_mean.to(device), self._image_std.to(device)

    def _tokens_of(self, prompts: Sequence[str]) -> tuple[Tensor, Tensor]:
        """(B, T) of the prompts and their attention mask, on the model's device, as long as the longest of them.

        What was padded beyond is masked everywhere: without it scores are the same, and cheaper.
        """
        tokens, mask = (torch.stack(rows) for rows in zip(*[self._read(prompt) for prompt in prompts]))
        longest = int(mask.any(dim=0).nonzero().max()) + 1
        device = self._image_mean.device
        return tokens[:, :longest].to(device), mask[:, :longest].to(device)

    def _read(self, prompt: str) -> tuple[Tensor, Tensor]:
        if prompt not in self._tokens:
            tokens = read(self.tokenizer, prompt, self.length, type(self).__name__)
            self._tokens[prompt] = tokens["input_ids"][0], tokens["attention_mask"][0]
        return self._tokens[prompt]

    def _config(self) -> dict[str, Any]:
        return {
            "model_type": "image-reward",
            **self.network.config(),
            "mean": self.mean,
            "std": self.std,
            "image_mean": self._image_mean.flatten().tolist(),
            "image_std": self._image_std.flatten().tolist(),
            "length": self.length,
        }

    @classmethod
    def _made(cls, config: Mapping[str, Any], network: Any, tokenizer: Any) -> Self:
        options = {name: config[name] for name in ("mean", "std", "image_mean", "image_std", "length")}
        return cls(network, tokenizer, **options)

    def save_pretrained(self, folder: Path, dtype: torch.dtype = torch.float16) -> None:
        """config.json, model.safetensors and the tokenizer's files."""
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "config.json").write_text(json.dumps(self._config(), indent=2) + "\n", encoding="utf-8")
        state = {key: value.cpu().to(dtype).contiguous() for key, value in self.network.state_dict().items()}
        save_file(state, folder / "model.safetensors")
        self.tokenizer.save_pretrained(str(folder / "tokenizer"))

    @classmethod
    def from_pretrained(
        cls,
        folder: str | PathLike[str],
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> Self:
        """A folder that `save_pretrained` wrote."""
        device, dtype = default_device_and_dtype(device, dtype)
        path = Path(folder).expanduser()
        config = read_model(path / "config.json", cls.file_class).model_dump()
        with quiet_loading():
            with reading(f"{cls.__name__} ({path.absolute()})"):
                network = cls.network_class.from_config(config)
            weights = path / "model.safetensors"
            load_strictly(network, read_checkpoint(weights), f"{cls.__name__} ({weights.absolute()})")
            tokenizer = read_tokenizer(path, "tokenizer")
        return cls._made(config, network.to(device, dtype), tokenizer)
