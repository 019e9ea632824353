"""Settings of the tasks, flat where the command line has them. Nothing heavy is imported here.

Rules across fields are checked here, so that a wrong combination is told before any model is loaded.
"""

from __future__ import annotations

import re
import unicodedata
from pathlib import Path
from typing import Annotated, ClassVar, Literal

import tyro
from pydantic import Field, field_validator, model_validator
from typing_extensions import Self

from rewardsds.runs.settings import RunSettings
from rewardsds.scenes.gaussians.settings import GaussianSettings

LONGEST_PROMPT = 2_000

WeightingName = Literal["none", "random", "softmax", "best", "best-worst"]


class DistillationSettings(RunSettings):
    """What both tasks share: the prompt, the prior, the reward, and how candidates become a gradient."""

    prompt: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="PROMPT")] = Field(
        description="What to make, in words."
    )
    negative_prompt: str = Field(
        default="", max_length=LONGEST_PROMPT, description="What the other branch of the guidance is told."
    )
    prior: str = Field(
        default="toybox",
        min_length=1,
        description="Diffusion model: toybox, a folder in the diffusers layout, or a hub id.",
    )
    reward: str = Field(
        default="clip",
        min_length=1,
        description="Reward: clip (the toybox's), or a folder or hub id of a CLIP model.",
    )

    candidates: int = Field(
        default=4, ge=1, le=1024, description="N: noises tried at a step. With weighting none it is always 1."
    )
    reward_steps: int | None = Field(
        default=None,
        ge=0,
        description="K: the first K steps use the reward, later ones are plain SDS. None: all steps.",
    )
    rollout_steps: int = Field(
        default=1,
        ge=1,
        le=1000,
        description="S: sampler steps from a noised candidate to the preview that is scored.",
    )
    weighting: WeightingName = Field(
        default="best-worst",
        description="How rewards become weights. none is plain SDS: no reward, one candidate.",
    )
    weighting_k: int = Field(
        default=1,
        ge=1,
        description="k of best (the k best count) and of best-worst (k best +0.9/k, k worst −0.1/k).",
    )
    temperature: float = Field(
        default=1.0, gt=0, description="Temperature of the softmax weighting, in units of the reward."
    )
    noise: Literal["iid", "antithetic"] = Field(
        default="iid", description="Candidates' noises: independent, or in pairs of opposite sign."
    )

    loss: Literal["sds", "recon"] = Field(
        default="sds",
        description="Residual: SDS's noise difference, or MVDream's reconstruction of the clean latent.",
    )
    guidance_scale: float = Field(
        default=3.0,
        ge=0,
        le=1000,
        description="Classifier-free guidance of the gradient: uncond + s · (cond − uncond). 3 suits the toybox; "
        "for Stable Diffusion 100 is common, for MVDream 50.",
    )
    guidance_rescale: float = Field(
        default=0.5,
        ge=0,
        le=1,
        description="How far recon's guided latent is brought back to the unguided spread.",
    )
    rollout_guidance_scale: float = Field(
        default=3.0, ge=0, le=1000, description="Classifier-free guidance of the previews."
    )
    t_range_start: tuple[float, float] = Field(
        default=(0.3, 0.98),
        description="Timesteps are drawn from this range at first (fractions of the prior's).",
    )
    t_range_end: tuple[float, float] = Field(
        default=(0.02, 0.5),
        description="And from this range after t_anneal_steps; in between it moves linearly.",
    )
    t_anneal_steps: int | None = Field(
        default=None, ge=1, description="Steps over which the range of timesteps moves. None: the whole run."
    )

    @field_validator("prompt")
    @classmethod
    def _check_prompt(cls, prompt: str) -> str:
        prompt = " ".join(prompt.split())
        if not prompt:
            raise ValueError('it is empty; say what to make, for example "a red cube"')
        if len(prompt) > LONGEST_PROMPT:
            raise ValueError(f"at most {LONGEST_PROMPT} characters are allowed, got {len(prompt)}")
        return prompt

    @field_validator("t_range_start", "t_range_end")
    @classmethod
    def _check_range(cls, ends: tuple[float, float]) -> tuple[float, float]:
        if not 0 <= ends[0] <= ends[1] <= 1:
            raise ValueError("expected two fractions, 0 <= low <= high <= 1")
        return ends

    @model_validator(mode="after")
    def _check_together(self) -> Self:
        needed = {"best": self.weighting_k, "best-worst": 2 * self.weighting_k}.get(self.weighting, 1)
        if self.candidates < needed:
            raise ValueError(
                f"candidates is {self.candidates}, but weighting {self.weighting} with weighting_k "
                f"{self.weighting_k} needs at least {needed}: raise candidates or lower weighting_k"
            )
        if self.reward_steps is not None and self.reward_steps > self.steps:
            raise ValueError(
                f"reward_steps is {self.reward_steps}, but the run has only {self.steps} steps: "
                "give at most that many, or leave it out for all"
            )
        return self

    @property
    def uses_reward(self) -> bool:
        """Whether any step needs the reward model."""
        return self.weighting != "none" and self.reward_steps != 0

    def default_out(self) -> Path:
        """runs/<task>-<words of the prompt>-<seed>"""
        return Path("runs") / f"{self.task}-{slug(self.prompt)}-{self.seed}"

    def with_out(self) -> Self:
        return self if self.out is not None else self.model_copy(update={"out": self.default_out()})


class TextToImageSettings(DistillationSettings):
    """Text to a picture: a latent is optimised directly."""

    task: ClassVar[str] = "image"

    steps: int = Field(default=160, ge=1, le=1_000_000, description="Optimisation steps.")
    learning_rate: float = Field(default=0.05, gt=0, description="Adam's learning rate of the latent.")
    init_scale: float = Field(
        default=1.0, ge=0, description="Standard deviation of the noise that the latent starts from."
    )


class TextTo3DSettings(DistillationSettings):
    """Text to a 3D object: Gaussians are optimised through renders from all around."""

    task: ClassVar[str] = "3d"

    backbone: Literal["gaussians"] = Field(default="gaussians", description="What the object is made of.")
    video_size: int = Field(
        default=256,
        ge=16,
        le=4096,
        multiple_of=2,
        description="Width and height of the result's pictures, pixels.",
    )
    video_frames: int = Field(
        default=72, ge=1, le=10_000, description="Frames of the turntable, 24 a second."
    )
    gaussians: GaussianSettings = Field(
        default_factory=GaussianSettings,
        description="How the Gaussians start, are seen, optimised and thinned.",
    )


def slug(text: str, longest: int = 48) -> str:
    """Words of a prompt as a part of a file name: letters of any script and digits, joined by hyphens."""
    words = re.findall(r"[^\W_]+", unicodedata.normalize("NFKC", text).lower())
    result = ""
    for word in words:
        joined = f"{result}-{word}" if result else word
        if len(joined.encode()) > longest:
            break
        result = joined
    return result or (words[0][: longest // 4] if words else "prompt")
