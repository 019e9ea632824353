"""CLIP score: the cosine between a picture and its prompt (arXiv 2103.00020, 2104.08718), and its fine-tuned kin."""

from __future__ import annotations

from collections.abc import Sequence
from os import PathLike
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import CLIPModel, PretrainedConfig, SiglipModel

from rewardsds.hub import BESIDE_WEIGHTS, located
from rewardsds.pretrained import default_device_and_dtype, load_part, quiet_loading, read_tokenizer
from rewardsds.rewards.base import ModelReward
from rewardsds.rewards.pictures import Fit, square
from rewardsds.rewards.stored import Channels, FileModel, PositiveChannels, read_model
from rewardsds.rewards.texts import read

# Published with the original CLIP; used where a checkpoint has no preprocessor_config.json.
CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)
HALVES = ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
"""SigLIP's mean and standard deviation."""
KINDS: dict[str, Any] = {"clip": CLIPModel, "siglip": SiglipModel}
FITS: dict[str, Fit] = {"clip": "crop", "siglip": "stretch"}
"""Of pictures that are not square, as each was published."""


class CLIPReward(ModelReward):
    """Cosine of the projected image and text features, in [−1, 1], meaned over the views of an item.

    Any `CLIPModel` or `SiglipModel`. HPSv2 and v2.1 (arXiv 2306.09341) are CLIPs that want their pictures padded;
    PickScore (arXiv 2305.01569) is one whose cosines are multiplied by its logit scale. Pictures are resized on the
    device (bicubic, antialiased); text features are kept.
    """

    def __init__(
        self,
        model: CLIPModel | SiglipModel,
        tokenizer: Any,
        mean: Sequence[float] = CLIP_MEAN,
        std: Sequence[float] = CLIP_STD,
        fit: Fit = "crop",
        scaled: bool = False,
    ) -> None:
        """fit: of pictures that are not square. scaled: multiply by the model's logit scale."""
        super().__init__()
        self.model: Any = model.eval().requires_grad_(False)
        self.tokenizer = tokenizer
        self.fit: Fit = fit
        self.scale = float(self.model.logit_scale.exp()) if scaled else 1.0
        self._mean = torch.tensor(mean, device=model.device).reshape(3, 1, 1)
        self._std = torch.tensor(std, device=model.device).reshape(3, 1, 1)
        self._text_features: dict[str, Tensor] = {}

    @classmethod
    def from_pretrained(
        cls,
        source: str | PathLike[str],
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        fit: Fit | None = None,
        scaled: bool = False,
        processor: str | None = None,
    ) -> CLIPReward:
        """Load a folder or a hub id. device: CUDA where it is; dtype: float32 on the CPU, float16 on CUDA.

        fit: None: as the kind of model has it, see `FITS`.
        processor: folder or hub id of the tokenizer and of the pictures' mean, where they lie elsewhere.
        """
        device, dtype = default_device_and_dtype(device, dtype)
        source = located(str(source))
        beside = source if processor is None else located(processor, BESIDE_WEIGHTS)
        with quiet_loading():
            kind = PretrainedConfig.get_config_dict(str(source))[0].get("model_type")
            if kind not in KINDS:
                raise ValueError(f"{source} is a {kind} model; a CLIP score needs one of {', '.join(KINDS)}")
            model: Any = load_part(KINDS[kind], source, dtype=dtype)
            tokenizer = read_tokenizer(beside)
        mean, std = _normalisation(beside, HALVES if kind == "siglip" else (CLIP_MEAN, CLIP_STD))
        return cls(model.to(device), tokenizer, mean, std, fit or FITS[kind], scaled)

    def __call__(self, images: Tensor, prompts: Sequence[str]) -> Tensor:
        """images (N, B, V, 3, H, W) in [0, 1], B prompts → cosines (N, B), meaned over V."""
        if images.ndim != 6 or images.shape[1] != len(prompts):
            raise ValueError(
                f"images must have shape (candidates, items, views, 3, H, W) with one item for each of "
                f"{len(prompts)} prompts, got {tuple(images.shape)}"
            )
        image_features = self.image_features(images.flatten(0, 2)).unflatten(0, images.shape[:3])
        text_features = torch.stack([self.text_features(prompt) for prompt in prompts])
        cosine = torch.einsum("nbvc,bc->nbv", image_features, text_features)
        return self.scale * cosine.mean(dim=2).to(images.device)

    def image_features(self, images: Tensor) -> Tensor:
        """(M, 3, H, W) in [0, 1] → unit vectors (M, C), float32. Carries gradient where the images do."""
        size: int = self.model.config.vision_config.image_size

        def look(rows: slice) -> Tensor:
            seen = square(images[rows].to(self._mean.device), size, self.fit)
            pixels = ((seen - self._mean) / self._std).to(self.model.dtype)
            return self.model.get_image_features(pixel_values=pixels).pooler_output

        return F.normalize(self.chunks(look, len(images)).float(), dim=-1)

    def to(self, device: torch.device | str) -> None:
        self.model.to(device)
        self._mean, self._std = self._mean.to(device), self._std.to(device)
        self._text_features.clear()

    def text_features(self, prompt: str) -> Tensor:
        """A unit vector (C,), float32."""
        if prompt not in self._text_features:
            length = min(
                self.tokenizer.model_max_length, self.model.config.text_config.max_position_embeddings
            )
            tokens = read(self.tokenizer, prompt, length, type(self).__name__)
            with torch.no_grad():
                # No attention mask, as CLIP was trained: the text tower is causal, read at the end token.
                features = self.model.get_text_features(
                    input_ids=tokens["input_ids"].to(self.model.device)
                ).pooler_output
            self._text_features[prompt] = F.normalize(features[0].float(), dim=-1)
        return self._text_features[prompt]


class _Processor(FileModel):
    """A `preprocessor_config.json`."""

    image_mean: Channels | None = None
    image_std: PositiveChannels | None = None


def _normalisation(
    source: str | PathLike[str], published: tuple[Sequence[float], Sequence[float]]
) -> tuple[Sequence[float], Sequence[float]]:
    """Mean and standard deviation from the checkpoint's preprocessor_config.json, else the published ones."""
    from transformers.utils.hub import cached_file

    folder = Path(source).expanduser()
    if folder.is_dir():
        file = folder / "preprocessor_config.json"
        found = file if file.is_file() else None
    else:
        found = cached_file(
            str(source), "preprocessor_config.json", _raise_exceptions_for_missing_entries=False
        )
    if found is None:
        return published
    own = read_model(Path(found), _Processor)
    return own.image_mean or published[0], own.image_std or published[1]
