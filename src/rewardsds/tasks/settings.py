"""Settings of the tasks, flat where the command line has them. Nothing heavy is imported here.

Rules across fields are checked here, so that a wrong combination is told before any model is loaded.
"""

from __future__ import annotations

import re
import unicodedata
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import tyro
from pydantic import AfterValidator, Field, field_validator, model_validator
from typing_extensions import Self

from rewardsds.distillation.phrases import BAD_QUALITY, BRIDGE_SOURCE, BRIDGE_TARGET
from rewardsds.rewards.expression import from_anywhere, whole_path
from rewardsds.runs.settings import RunSettings, Settings
from rewardsds.scenes.gaussians.settings import GaussianSettings
from rewardsds.scenes.mesh.settings import MeshExportSettings, MeshSettings
from rewardsds.scenes.nerf.settings import NeRFSettings
from rewardsds.scenes.settings import BackgroundSettings, CameraSettings

LONGEST_PROMPT = 2_000

WeightingName = Literal["none", "random", "softmax", "best", "best-worst", "rank", "advantage"]
LossName = Literal["sds", "recon", "vsd", "bridge", "csd", "nfsd", "ism", "sdi", "refine"]

GUIDANCE_SCALES: dict[str, tuple[float, float]] = {
    "sds": (3.0, 100.0),
    "recon": (3.0, 50.0),
    "vsd": (3.0, 7.5),
    "bridge": (3.0, 100.0),
    "csd": (3.0, 50.0),
    "nfsd": (3.0, 7.5),
    "ism": (3.0, 7.5),
    "sdi": (3.0, 7.5),
    "dds": (3.0, 7.5),
}
"""Guidance scales of the losses, where none is given: on the toybox, and in their papers. refine has the previews'."""
LATENT_STARTS: dict[LossName, tuple[float, float]] = {
    "sds": (0.05, 1.0),
    "recon": (0.05, 1.0),
    "vsd": (0.05, 1.0),
    "bridge": (0.02, 0.0),
    "csd": (0.03, 0.0),
    "nfsd": (0.02, 0.0),
    "ism": (0.02, 0.0),
    "sdi": (0.02, 0.0),
    "refine": (0.02, 0.0),
}
"""Learning rate and initial deviation of a latent, where none is given.

Losses without the noise ε in their residual neither take noise out of a latent nor jitter: they start from zero, and
Adam's steps, which for them all go one way, are shorter.
"""
ROLLOUT_GUIDANCE_SCALES = (3.0, 7.5)
"""Of the previews: on the toybox, and in RewardSDS's public code."""
ESTIMATORS = ((True, 3e-3), (False, 1e-3))
"""Of VSD's estimator, where not given: whether its convolutions learn too, and its learning rate; on the toybox, and
elsewhere. The toybox's network attends at 8 × 8 and 4 × 4 only: with adapters in the attention alone, VSD's pictures
stay full of noise."""


_GRADER = re.compile(r"(?:^|(?<=[\s*(,]))grader:([^\s,)]*)")
"""A grader's model, within a reward. `rewards.load`, which takes rewards apart, would load torch."""


def _checked_prompt(prompt: str) -> str:
    prompt = " ".join(prompt.split())
    if not prompt:
        raise ValueError('it is empty; say what to make, for example "a red cube"')
    if len(prompt) > LONGEST_PROMPT:
        raise ValueError(f"at most {LONGEST_PROMPT} characters are allowed, got {len(prompt)}")
    return prompt


Prompt = Annotated[str, AfterValidator(_checked_prompt)]


class VSDSettings(Settings):
    """Of the loss vsd: the estimator, LoRA on the prior's own network."""

    rank: int = Field(default=4, ge=1, le=512, description="Rank of the adapters.")
    convolutions: bool | None = Field(
        default=None,
        description="Adapters in the convolutions of the residual blocks, beside those in the attention. null: on the "
        "toybox, whose network attends at coarse resolutions only.",
    )
    learning_rate: float | None = Field(
        default=None,
        gt=0,
        description="AdamW's learning rate of the estimator. null: 0.003 on the toybox, else 0.001.",
    )
    updates: int = Field(
        default=1, ge=1, le=1000, description="Training steps of the estimator for each step of the scene."
    )
    t_range: tuple[float, float] = Field(
        default=(0.0, 1.0), description="Timesteps that it is trained at (fractions of the prior's)."
    )


class BridgeSettings(Settings):
    """Of the loss bridge: plain SDS in the first stage, from source to target in the second."""

    first_stage: float = Field(
        default=0.5, ge=0, le=1, description="Share of the steps that are the first stage."
    )
    source: str = Field(
        default=BRIDGE_SOURCE,
        max_length=LONGEST_PROMPT,
        description="What is put after the prompt to say what the picture looks like after the first stage.",
    )
    target: str = Field(
        default=BRIDGE_TARGET,
        max_length=LONGEST_PROMPT,
        description="What is put after the prompt to say what it should look like.",
    )


class NFSDSettings(Settings):
    """Of the loss nfsd."""

    bad_quality: str = Field(
        default=BAD_QUALITY,
        max_length=LONGEST_PROMPT,
        description="What pictures look like that are off the data; words that the prior does not know are left out.",
    )
    small: float = Field(
        default=0.2,
        ge=0,
        le=1,
        description="Below this share of the timesteps the prediction stands for what leads to the data.",
    )


class InversionSettings(Settings):
    """Of the losses sdi and ism: DDIM inversion in place of drawn noise."""

    eta: float = Field(
        default=0.3,
        ge=0,
        le=1,
        description="Share of drawn noise that is mixed in: what candidates differ by. 0: deterministic.",
    )
    steps: int = Field(default=10, ge=1, le=1000, description="Network calls of an inversion (sdi).")
    guidance_scale: float = Field(
        default=-7.5, ge=-1000, le=1000, description="Classifier-free guidance of the inversion (sdi)."
    )
    interval: float = Field(
        default=0.05,
        gt=0,
        lt=1,
        description="Length of the interval t − s, as a share of the timesteps (ism).",
    )
    stride: float = Field(
        default=0.2,
        gt=0,
        le=1,
        description="Step of the inversion below s, as a share of the timesteps (ism).",
    )


class GraderSettings(Settings):
    """Of the reward grader:MODEL, a vision-language model at an OpenAI-compatible endpoint.

    Its key comes from the environment variable OPENAI_API_KEY alone.
    """

    url: str | None = Field(
        default=None,
        pattern=r"^https?://",
        description="Base address of the endpoint. null: OPENAI_BASE_URL, else OpenAI's.",
    )
    budget: int | None = Field(
        default=None,
        ge=1,
        description="Questions that may be asked; known answers are free, and a resumed run counts anew. null: any "
        "number.",
    )
    retries: int = Field(
        default=4, ge=0, le=100, description="How often a question is asked again where the endpoint fails."
    )
    timeout: float = Field(
        default=60.0,
        gt=0,
        le=3600,
        description="Seconds that an answer, or that of a retry, may take to its end.",
    )
    parallel: int = Field(default=8, ge=1, le=256, description="Questions at the same time.")
    cache: Path | None = Field(
        default=None, description="Folder of answers. null: .cache/rewardsds/grader in the home folder."
    )


class ViewPromptSettings(Settings):
    """View-dependent prompting, for priors that know no cameras."""

    use: Literal["auto", "on", "off"] = Field(
        default="auto",
        description="Whether words about the view follow the prompt. auto: where the prior sees single pictures.",
    )
    front: str = Field(
        default=", front view", max_length=200, description="What follows the prompt in front."
    )
    side: str = Field(default=", side view", max_length=200, description="And at the sides.")
    back: str = Field(default=", back view", max_length=200, description="And behind.")
    overhead: str = Field(default=", overhead view", max_length=200, description="And from above.")
    front_angle: float = Field(
        default=45.0,
        gt=0,
        le=90,
        description="Degrees to either side within which the front, and the back, are seen.",
    )
    overhead_elevation: float = Field(
        default=60.0, ge=0, le=90, description="Degrees of elevation from which on it is seen from above."
    )
    perp_neg: bool = Field(
        default=False,
        description="Blend the words between views and push off those of other views (Perp-Neg), which costs up to two "
        "pictures more for each of the prior's.",
    )
    perp_neg_weight: float = Field(default=2.0, ge=0, le=100, description="How strongly Perp-Neg pushes.")


class DistillationSettings(RunSettings):
    """What all tasks share: the prior, the reward, and how candidates become a gradient."""

    negative_prompt: str = Field(
        default="", max_length=LONGEST_PROMPT, description="What the other branch of the guidance is told."
    )
    prior: str = Field(
        default="toybox",
        min_length=1,
        description="Diffusion model: toybox, a folder in the diffusers layout (Stable Diffusion 1 and 2, SDXL, SD3, "
        "FLUX, MVDream), or a hub id.",
    )
    image_size: int | None = Field(
        default=None,
        ge=16,
        le=4096,
        description="Pixels that the prior works at. null: what it was trained at.",
    )
    distilled_guidance: float = Field(
        default=3.5, ge=0, le=100, description="Guidance that FLUX dev takes as an input; others take none."
    )
    reward: str = Field(
        default="clip",
        min_length=1,
        description="Reward: clip, aesthetic or image-reward (the toybox's), a folder or hub id of a reward model, "
        "package.module:function, grader:MODEL (a vision-language model at an endpoint), a sum such as "
        '"clip + 0.5 * aesthetic", or min(clip, aesthetic).',
    )
    reward_failures: Literal["stop", "skip"] = Field(
        default="stop",
        description="Where one of several rewards fails: stop with the state saved, or go on with the others; one "
        "that cannot be reached three times in a row is then given up.",
    )
    grader: GraderSettings = Field(default_factory=GraderSettings, description="The reward grader:MODEL.")

    candidates: int = Field(
        default=4, ge=1, le=1024, description="N: noises tried at a step. With weighting none it is always 1."
    )
    reward_steps: int | str | None = Field(
        default=None,
        description="K: the first K steps use the reward, later ones are plain SDS; a number, or a share of the steps "
        "such as 50%. null: all steps.",
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
    advantage_factor: float = Field(
        default=3.0,
        ge=0,
        le=1000,
        description="How much standardised rewards move the weights of advantage; 0 weighs all alike.",
    )
    temperature: float = Field(
        default=1.0, gt=0, description="Temperature of the softmax weighting, in units of the reward."
    )
    noise: Literal["iid", "antithetic"] = Field(
        default="iid", description="Candidates' noises: independent, or in pairs of opposite sign."
    )

    timestep_weight: Literal["auto", "variance", "uniform", "fantasia3d"] = Field(
        default="auto",
        description="ω(t), by which steps at different timesteps count: variance (σ², DreamFusion's), uniform, or "
        "fantasia3d (α σ²). auto: the loss's own, variance but for recon and refine.",
    )
    guidance_scale: float | None = Field(
        default=None,
        ge=0,
        le=1000,
        description="Classifier-free guidance of the gradient: uncond + s · (cond − uncond). null: what suits the "
        "loss, on the toybox lower than on large priors (sds 3 and 100, vsd 3 and 7.5).",
    )
    rollout_guidance_scale: float | None = Field(
        default=None,
        ge=0,
        le=1000,
        description="Classifier-free guidance of the previews. null: 3 on the toybox, 7.5 elsewhere.",
    )
    reward_gradient: float = Field(
        default=0.0,
        ge=0,
        le=1e6,
        description="λ: how strongly the reward's own gradient is added, for differentiable rewards. 0: not at all.",
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

    precision: Literal["auto", "fp32", "bf16", "fp16"] = Field(
        default="auto",
        description="Of the prior's and the reward's weights. auto: fp32 on the CPU, fp16 on a GPU.",
    )
    chunk: Annotated[int, Field(ge=1)] | Literal["auto"] | None = Field(
        default="auto",
        description="Pictures in one call of the prior's network, its autoencoder and the reward. auto: all, and as "
        "many as fit where the GPU's memory does not hold them; null: all. It changes results by rounding only.",
    )
    offload: bool = Field(
        default=False,
        description="Text encoders wait in the CPU's memory, and so does the reward after its K steps.",
    )
    attention_slicing: bool = Field(
        default=False,
        description="One attention head after the other: slower, less memory; UNets of single pictures.",
    )
    vae_tiling: bool = Field(
        default=False,
        description="Encode and decode pictures beyond the autoencoder's tile in overlapping tiles: slower, less "
        "memory.",
    )
    compile: bool = Field(
        default=False,
        description="Compile the prior's network (torch.compile): the first step takes minutes, later ones less.",
    )

    @field_validator("t_range_start", "t_range_end")
    @classmethod
    def _check_range(cls, ends: tuple[float, float]) -> tuple[float, float]:
        if not 0 <= ends[0] <= ends[1] <= 1:
            raise ValueError("expected two fractions, 0 <= low <= high <= 1")
        return ends

    @field_validator("reward_steps", mode="before")
    @classmethod
    def _check_reward_steps(cls, given: Any) -> int | str | None:
        if isinstance(given, str) and re.fullmatch(r"\d+", given):
            return int(given)
        if isinstance(given, str):
            fits = re.fullmatch(r"\d+(\.\d+)?%", given) is not None and float(given[:-1]) <= 100
        else:
            fits = given is None or (type(given) is int and given >= 0)
        if not fits:
            raise ValueError("expected a whole number of steps, 0 or more, or a share of them such as 50%")
        return given

    @model_validator(mode="after")
    def _check_together(self) -> Self:
        needed = {
            "best": self.weighting_k,
            "best-worst": 2 * self.weighting_k,
            "rank": 2,
            "advantage": 2,
        }.get(self.weighting, 1)
        if self.candidates < needed:
            raise ValueError(
                f"candidates is {self.candidates}, but weighting {self.weighting} with weighting_k "
                f"{self.weighting_k} needs at least {needed}: raise candidates or lower weighting_k"
            )
        count = self.resolved_reward_steps
        if count is not None and count > self.steps:
            raise ValueError(
                f"reward_steps is {count}, but the run has only {self.steps} steps: "
                "give at most that many, or leave it out for all"
            )
        return self

    @model_validator(mode="after")
    def _check_graders(self) -> Self:
        graders = _GRADER.findall(self.reward)
        if "" in graders:
            raise ValueError(
                f"the reward {self.reward!r} has a grader without a model: name one, for example grader:gpt-4o-mini"
            )
        if graders and self.reward_gradient > 0:
            raise ValueError(
                f"reward_gradient is {self.reward_gradient:g}, but the reward grader:{graders[0]} has no gradient: "
                "leave it at 0, or give a reward without a grader"
            )
        return self

    @property
    def uses_reward(self) -> bool:
        """Whether any step weighs candidates by their rewards."""
        return self.weighting != "none" and self.resolved_reward_steps != 0

    @property
    def needs_reward(self) -> bool:
        """Whether the reward model is needed at all."""
        return self.uses_reward or self.reward_gradient > 0

    @property
    def resolved_reward_steps(self) -> int | None:
        """K as a number of steps; None: all."""
        if isinstance(self.reward_steps, str):
            share = float(self.reward_steps.rstrip("%")) / 100
            return max(1, round(share * self.steps)) if share else 0
        return self.reward_steps

    @property
    def resolved_guidance_scale(self) -> float:
        if self.loss_name == "refine":
            return self.resolved_rollout_guidance_scale
        if self.guidance_scale is not None:
            return self.guidance_scale
        return GUIDANCE_SCALES[self.loss_name][0 if self.prior == "toybox" else 1]

    @property
    def resolved_rollout_guidance_scale(self) -> float:
        if self.rollout_guidance_scale is not None:
            return self.rollout_guidance_scale
        return ROLLOUT_GUIDANCE_SCALES[0 if self.prior == "toybox" else 1]

    def resolved(self) -> Self:
        """With K counted, the guidance scales filled in, and models where they lie whatever the current folder, beside
        what every run fills in."""
        own = {
            "prior": self.prior if self.prior == "toybox" else whole_path(self.prior),
            "reward": from_anywhere(self.reward),
            "reward_steps": self.resolved_reward_steps,
            "guidance_scale": self.resolved_guidance_scale,
            "rollout_guidance_scale": self.resolved_rollout_guidance_scale,
        }
        return super().resolved().model_copy(update=own)

    @property
    def loss_name(self) -> LossName | Literal["dds"]:
        raise NotImplementedError

    @property
    def wanted(self) -> str:
        """The prompt that the result should fit."""
        raise NotImplementedError

    def default_out(self) -> Path:
        """runs/<task>-<words of the prompt>-<seed>"""
        return Path("runs") / f"{self.task}-{slug(self.wanted)}-{self.seed}"

    def with_out(self) -> Self:
        return self if self.out is not None else self.model_copy(update={"out": self.default_out()})


class GenerationSettings(DistillationSettings):
    """Making something from a text alone."""

    loss: LossName = Field(
        default="sds",
        description="What is distilled: sds, recon (MVDream's), vsd (a trained estimator in place of the noise), "
        "bridge, csd, nfsd, ism, sdi or refine (towards the previews themselves). Each goes with every weighting.",
    )
    guidance_rescale: float = Field(
        default=0.5,
        ge=0,
        le=1,
        description="How far recon's guided latent is brought back to the unguided spread.",
    )
    vsd: VSDSettings = Field(default_factory=VSDSettings, description="The estimator of the loss vsd.")
    bridge: BridgeSettings = Field(default_factory=BridgeSettings, description="The loss bridge's stages.")
    nfsd: NFSDSettings = Field(default_factory=NFSDSettings, description="The loss nfsd.")
    inversion: InversionSettings = Field(
        default_factory=InversionSettings, description="Inversion in the losses sdi and ism."
    )
    particles: int = Field(
        default=1,
        ge=1,
        le=64,
        description="Results that are made at the same time, from seeds seed, seed + 1, …; with the loss vsd they "
        "share one estimator.",
    )

    @model_validator(mode="after")
    def _check_guidance(self) -> Self:
        given = self.guidance_scale
        if self.loss == "refine" and given not in (None, self.resolved_rollout_guidance_scale):
            raise ValueError(
                f"guidance_scale is {given}, but the loss refine follows the previews, which have "
                f"rollout_guidance_scale ({self.resolved_rollout_guidance_scale}): give that one"
            )
        if self.loss in ("recon", "refine") and self.timestep_weight != "auto":
            raise ValueError(
                f"timestep_weight is {self.timestep_weight}, but the loss {self.loss} compares pictures and not "
                "noises, with a weight of its own: leave it at auto"
            )
        return self

    @property
    def loss_name(self) -> LossName:
        return self.loss

    @property
    def texts(self) -> tuple[str, ...]:
        """What to make: one prompt, or several side by side."""
        raise NotImplementedError

    @property
    def seeds(self) -> list[int]:
        """One a particle."""
        return [self.seed + index for index in range(self.particles)]

    @property
    def resolved_vsd(self) -> VSDSettings:
        convolutions, rate = ESTIMATORS[0 if self.prior == "toybox" else 1]
        given = self.vsd.model_dump(exclude_none=True)
        return VSDSettings(**{"convolutions": convolutions, "learning_rate": rate, **given})

    def resolved(self) -> Self:
        return super().resolved().model_copy(update={"vsd": self.resolved_vsd})


class TextToImageSettings(GenerationSettings):
    """Text to a picture: a latent is optimised directly."""

    task: ClassVar[str] = "image"

    prompt: Annotated[Prompt | None, tyro.conf.Positional, tyro.conf.arg(metavar="PROMPT")] = Field(
        default=None, description="What to make, in words."
    )
    prompts: Annotated[tuple[Prompt, ...], tyro.conf.Suppress] = Field(
        default=(), description="Several things to make side by side, in place of prompt."
    )

    steps: int = Field(default=160, ge=1, le=1_000_000, description="Optimisation steps.")
    learning_rate: float | None = Field(
        default=None,
        gt=0,
        description="Adam's learning rate of the latent. null: what suits the loss (sds 0.05, csd 0.03).",
    )
    init: Path | None = Field(
        default=None,
        description="PNG, JPEG or WebP that the latent starts from; its middle square is taken. null: noise alone.",
    )
    init_scale: float | None = Field(
        default=None,
        ge=0,
        description="Standard deviation of the noise that the latent starts from, or that is added to the picture "
        "init. null: 0 with a picture, else what suits the loss (sds 1, csd 0).",
    )

    @model_validator(mode="after")
    def _check_prompts(self) -> Self:
        if self.prompt is None and not self.prompts:
            raise ValueError('no PROMPT is given: say what to make, for example "a red cube"')
        if self.prompt is not None and self.prompts:
            raise ValueError("both a prompt and a list of prompts are given: one of them is enough")
        if self.loss == "vsd" and len(self.prompts) > 1:
            raise ValueError(
                "the loss vsd trains one estimator for one prompt: run its prompts one by one, or choose another loss"
            )
        return self

    @property
    def resolved_learning_rate(self) -> float:
        return LATENT_STARTS[self.loss][0] if self.learning_rate is None else self.learning_rate

    @property
    def resolved_init_scale(self) -> float:
        if self.init_scale is not None:
            return self.init_scale
        return 0.0 if self.init is not None else LATENT_STARTS[self.loss][1]

    def resolved(self) -> Self:
        start = {"learning_rate": self.resolved_learning_rate, "init_scale": self.resolved_init_scale}
        return super().resolved().model_copy(update=start)

    @property
    def texts(self) -> tuple[str, ...]:
        """The prompts, whichever way they were given."""
        return self.prompts or (self.prompt or "",)

    @property
    def wanted(self) -> str:
        return self.prompt or f"{len(self.prompts)} prompts {self.prompts[0]}"


class TextTo3DSettings(GenerationSettings):
    """Text to a 3D object, which is optimised through renders from all around."""

    task: ClassVar[str] = "3d"

    prompt: Annotated[Prompt, tyro.conf.Positional, tyro.conf.arg(metavar="PROMPT")] = Field(
        description="What to make, in words."
    )

    backbone: Literal["gaussians", "nerf", "mesh"] = Field(
        default="gaussians",
        description="What the object is made of: Gaussians, a NeRF (a density and a colour at every point), or a mesh "
        "whose texture alone is optimised.",
    )
    init: Path | None = Field(
        default=None,
        description="What the object starts from: a mesh (glb, gltf, obj, stl, ply), a point cloud or Gaussians (ply), "
        "or the folder of another run. null: the backbone's own start.",
    )
    reward_over_views: Literal["together", "mean", "min"] = Field(
        default="together",
        description="How an object's views are scored. together: as the reward itself does it (the toybox's take the "
        "mean); mean or min: each by itself, and the object is as good as their mean or as its worst side.",
    )
    rewarded_views: tuple[int, ...] | None = Field(
        default=None, description="Which of a step's views are scored, counted from 0. null: all of them."
    )
    view_prompts: ViewPromptSettings = Field(
        default_factory=ViewPromptSettings, description="Words for views, where the prior knows no cameras."
    )
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
    camera: CameraSettings = Field(
        default_factory=CameraSettings, description="From where the object is seen while it is optimised."
    )
    background: BackgroundSettings = Field(
        default_factory=BackgroundSettings, description="What is behind the object."
    )
    gaussians: GaussianSettings = Field(
        default_factory=GaussianSettings,
        description="How the Gaussians start, are optimised and thinned.",
    )
    nerf: NeRFSettings = Field(
        default_factory=NeRFSettings,
        description="How the NeRF starts, is rendered, regularised and optimised.",
    )

    mesh: MeshSettings = Field(default_factory=MeshSettings, description="How a mesh's texture is optimised.")
    extraction: MeshExportSettings = Field(
        default_factory=MeshExportSettings,
        description="How the object of another run becomes the mesh that this one starts from.",
    )

    def resolved(self) -> Self:
        return super().resolved().model_copy(update={"camera": self.camera.resolved()})

    @property
    def texts(self) -> tuple[str, ...]:
        return (self.prompt,)

    @property
    def wanted(self) -> str:
        return self.prompt

    @model_validator(mode="after")
    def _check_start(self) -> Self:
        if self.backbone == "mesh" and self.init is None:
            raise ValueError(
                "the backbone mesh optimises the texture of a finished shape: give one with init, a file or a run"
            )
        return self

    @model_validator(mode="after")
    def _check_views(self) -> Self:
        views = self.camera.views
        if self.rewarded_views is not None:
            if not self.rewarded_views:
                raise ValueError("rewarded_views is empty: name at least one view, or null for all")
            beyond = [view for view in self.rewarded_views if not 0 <= view < views]
            if beyond:
                raise ValueError(f"rewarded_views names {beyond[0]}: there are {views} views, counted from 0")
        return self


class EditSettings(DistillationSettings):
    """Changing a picture from what it shows to something else, by the delta denoising score."""

    task: ClassVar[str] = "edit"

    picture: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="PICTURE")] = Field(
        description="PNG, JPEG or WebP to change. Its middle square is taken, at the prior's resolution."
    )
    source: Prompt = Field(description="What the picture shows, in words.")
    target: Prompt = Field(description="What it should show instead.")
    keep: float = Field(
        default=0.0,
        ge=0,
        le=1000,
        description="Weight of a second reward, closeness to the picture given; the first has weight 1.",
    )
    flow_t_max: float = Field(
        default=0.7,
        gt=0,
        le=1,
        description="Highest timestep on flow models (SD3, FLUX), whose last third is almost pure noise.",
    )
    steps: int = Field(default=100, ge=1, le=1_000_000, description="Optimisation steps.")
    learning_rate: float = Field(default=0.02, gt=0, description="Adam's learning rate of the latent.")

    def below(self, highest: float) -> Self:
        """With no timestep above a share of the prior's."""
        ends = {
            name: (min(low, highest), min(high, highest))
            for name, (low, high) in (
                ("t_range_start", self.t_range_start),
                ("t_range_end", self.t_range_end),
            )
        }
        return self.model_copy(update=ends)

    @property
    def loss_name(self) -> Literal["dds"]:
        return "dds"

    @property
    def wanted(self) -> str:
        return self.target


TASKS: dict[str, type[DistillationSettings]] = {
    kind.task: kind for kind in (TextToImageSettings, TextTo3DSettings, EditSettings)
}
"""Settings of the tasks, by name."""


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
