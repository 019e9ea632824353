"""Everything that is computed on a device is computed there, and comes to what the CPU comes to.

On the simulated device, which is always there and finds tensors that are on the wrong one; and on a GPU with
`pytest -m cuda`.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, cast

import pytest
import torch
import trimesh
from torch import Tensor

import tiny_models
import tiny_pipelines
from rewardsds.distillation.guidance import RewardSDS
from rewardsds.distillation.losses import (
    CSD,
    DDS,
    ISM,
    NFSD,
    SDI,
    SDS,
    VSD,
    Bridge,
    Loss,
    Recon,
    Refine,
    TwoStageBridge,
    WithRewardGradient,
)
from rewardsds.distillation.weighting import Advantage, Best, BestWorst, Random, Rank, Softmax, Weighting
from rewardsds.priors.latent import LatentPrior
from rewardsds.priors.load import load_prior
from rewardsds.priors.lora import LoRAEstimator
from rewardsds.priors.view_dependent import PerpNeg, ViewDependentPrior
from rewardsds.rewards.base import Reward
from rewardsds.rewards.load import load_reward
from rewardsds.rewards.views import OverViews
from rewardsds.runs.loop import start
from rewardsds.scenes.base import Scene
from rewardsds.scenes.cameras import orbit
from rewardsds.scenes.export import turntable_cameras
from rewardsds.scenes.gaussians.scene import GaussianScene
from rewardsds.scenes.gaussians.settings import GaussianSettings
from rewardsds.scenes.mesh.scene import MeshScene
from rewardsds.scenes.mesh.settings import MeshSettings
from rewardsds.scenes.mesh.textured import TexturedMesh
from rewardsds.scenes.nerf.scene import NeRFScene
from rewardsds.scenes.nerf.settings import NeRFSettings
from rewardsds.scenes.object3d import Object3D
from rewardsds.scenes.pictures import read_picture
from rewardsds.scenes.settings import CameraSettings
from rewardsds.tasks import text_to_3d, text_to_image
from rewardsds.tasks.settings import TextTo3DSettings, TextToImageSettings

PROMPTS = ["a red apple", "a green car"]
SMALL_NERF = NeRFSettings(
    levels=4,
    log2_table=10,
    occupancy_resolution=16,
    neurons=16,
    samples_per_ray=24,
    evaluation_samples_per_ray=24,
    orientation_weight=0.1,
    opacity_weight=0.1,
    z_variance_weight=0.1,
    sparsity_weight=0.1,
)


def pictures(batch: int = 2, views: int = 4, size: int = 16) -> Tensor:
    return torch.rand((batch, views, 3, size, size), generator=torch.Generator().manual_seed(0))


def around(device: str, views: int = 4) -> Tensor:
    """(1, views, 4, 4)"""
    angles = torch.arange(views)[None] * (2 * torch.pi / views)
    cameras = orbit(angles, torch.tensor(0.2), torch.tensor(2.0), torch.tensor(0.7))
    return cameras.camera_to_world.to(device)


def gradient(
    device: str, prior: Any, reward: Reward | None, loss: Loss | None = None, steps: int = 1, **options: Any
) -> Tensor:
    """Of the last of some steps with two items of four views, read on the CPU."""
    guidance = RewardSDS(
        prior, reward, **{"candidates": 2, "loss": loss, "rollout_guidance_scale": 3.0, **options}
    )
    images = pictures().to(device).requires_grad_()
    cameras = around(device).expand(2, -1, -1, -1)
    for _ in range(steps):
        images.grad = None
        guidance(images, PROMPTS, cameras=cameras, previews=True).backward()
    assert images.grad is not None
    assert images.grad.device.type == images.device.type == torch.device(device).type
    return images.grad.cpu()


def assert_same(device: str, compute: Callable[[str], Tensor]) -> None:
    """What is computed there is what the CPU computes, with the same draws."""
    found, expected = compute(device), compute("cpu")
    assert expected.abs().sum() > 0
    torch.testing.assert_close(found, expected, rtol=1e-2, atol=1e-3 * float(expected.abs().max()))


LOSSES: dict[str, Callable[[LatentPrior, Reward], Loss]] = {
    "sds": lambda prior, reward: SDS(20.0),
    "recon": lambda prior, reward: Recon(20.0),
    "csd": lambda prior, reward: CSD(),
    "nfsd": lambda prior, reward: NFSD(),
    "sdi": lambda prior, reward: SDI(),
    "ism": lambda prior, reward: ISM(),
    "refine": lambda prior, reward: Refine(),
    "bridge": lambda prior, reward: TwoStageBridge(1, second=Bridge(7.5)),
    "vsd": lambda prior, reward: VSD(LoRAEstimator(prior, convolutions=True)),
    "reward gradient": lambda prior, reward: WithRewardGradient(SDS(20.0), reward, 3.0),
    "dds": lambda prior, reward: DDS(
        prior.encode(pictures().flip(0).to(prior.alphas_cumprod.device)),
        prior.condition(["a red car"] * 2, "", around(str(prior.alphas_cumprod.device)).expand(2, -1, -1, -1)),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", LOSSES)
def test_losses(device: str, name: str, tiny_prior_folder: Path, tiny_clip_folder: Path):
    def compute(device: str) -> Tensor:
        prior = load_prior(tiny_prior_folder, device, torch.float32)
        reward = load_reward(str(tiny_clip_folder), device, torch.float32)
        return gradient(device, prior, reward, LOSSES[name](prior, reward), steps=3, rollout_steps=2)

    assert_same(device, compute)


@pytest.mark.parametrize("noise", ["iid", "antithetic"])
@pytest.mark.parametrize(
    "weighting", [Random(), Softmax(0.01), Best(2), BestWorst(1), Rank(), Advantage()], ids=repr
)
def test_weightings(
    device: str, weighting: Weighting, noise: Any, tiny_prior_folder: Path, tiny_clip_folder: Path
):
    def compute(device: str) -> Tensor:
        prior = load_prior(tiny_prior_folder, device, torch.float32)
        reward = load_reward(str(tiny_clip_folder), device, torch.float32)
        return gradient(device, prior, reward, weighting=weighting, noise=noise)

    assert_same(device, compute)


PRIORS: dict[str, Callable[[Path], Path]] = {
    "sd": lambda at: tiny_models.save_prior(at, multiview=False),
    "sd-v": lambda at: tiny_models.save_prior(at, multiview=False, prediction_type="v_prediction"),
    "sdxl": tiny_pipelines.save_sdxl,
    "sd3": tiny_pipelines.save_sd3,
    "flux-dev": tiny_pipelines.save_flux,
    "flux-schnell": lambda at: tiny_pipelines.save_flux(at, distilled=False),
}


@pytest.mark.parametrize("chunk, offload", [(None, False), (3, True)])
@pytest.mark.parametrize("name", PRIORS)
def test_priors(
    device: str, name: str, chunk: int | None, offload: bool, tmp_path: Path, tiny_clip_folder: Path
):
    folder = PRIORS[name](tmp_path / "prior")

    def compute(device: str) -> Tensor:
        prior = load_prior(folder, device, torch.float32, image_size=16, offload=offload)
        prior.in_chunks(chunk)
        reward = load_reward(str(tiny_clip_folder), device, torch.float32)
        return gradient(device, prior, reward, steps=2, reward_steps=1, rest_reward=True)

    assert_same(device, compute)


@pytest.mark.parametrize("perp_neg", [None, PerpNeg()])
def test_views_told_in_words(device: str, perp_neg: PerpNeg | None, tiny_single_view_prior_folder: Path):
    def compute(device: str) -> Tensor:
        prior = load_prior(tiny_single_view_prior_folder, device, torch.float32)
        return gradient(device, ViewDependentPrior(prior, perp_neg=perp_neg), None, reward_steps=0)

    assert_same(device, compute)


# --- rewards ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name", ["clip", "aesthetic", "image-reward", "clip + 0.5 * aesthetic", "min(clip, aesthetic)"]
)
def test_rewards_and_their_gradients(device: str, name: str):
    def compute(device: str) -> Tensor:
        reward = load_reward(name, device, torch.float32)
        images = torch.stack([pictures(size=64), 0.5 * pictures(size=64)]).to(device).requires_grad_()
        scores = reward(images, PROMPTS)
        assert scores.device.type == images.device.type
        scores.square().sum().backward()
        assert images.grad is not None
        return torch.cat([scores.detach().flatten().cpu(), images.grad.flatten().cpu()])

    assert_same(device, compute)


@pytest.mark.parametrize("how", ["mean", "min"])
def test_rewards_over_views(device: str, how: Any, tiny_clip_folder: Path):
    def compute(device: str) -> Tensor:
        reward = OverViews(load_reward(str(tiny_clip_folder), device, torch.float32), how, (0, 2))
        return reward(pictures()[None].to(device), PROMPTS).cpu()

    assert_same(device, compute)


# --- scenes -------------------------------------------------------------------------------------------------


def gaussians(device: str, **settings: Any) -> Scene:
    own = GaussianSettings.model_validate(
        {"initial_gaussians": 200, "sh_degree": 1, "sh_degree_every": 2, "densify_start": 1, "densify_every": 2}
        | {"densify_gradient": 1e-6, "opacity_entropy_weight": 0.1} | settings
    )  # fmt: skip
    return GaussianScene([drawn(0)], own, camera=CameraSettings(resolution=(16,)), device=device)


def nerf(device: str) -> Scene:
    return NeRFScene([drawn(0)], SMALL_NERF, camera=CameraSettings(resolution=(12,)), device=device)


def mesh(device: str) -> Scene:
    ball = trimesh.creation.icosphere(2, 0.6)
    vertices = torch.tensor(ball.vertices, dtype=torch.float32)
    texture = torch.rand((3, 16, 16), generator=drawn(0))
    found = TexturedMesh(vertices, torch.tensor(ball.faces), 0.5 + 0.4 * vertices[:, :2] / 0.6, texture)
    return MeshScene(found, MeshSettings(), camera=CameraSettings(resolution=(16,)), device=device)


def drawn(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


SCENES: dict[str, Callable[[str], Scene]] = {
    "gaussians": gaussians,
    "gaussians-mcmc": partial(gaussians, strategy="mcmc"),
    "nerf": nerf,
    "mesh": mesh,
}  # fmt: skip


@pytest.mark.parametrize("name", SCENES)
def test_scenes(device: str, name: str):
    """Six steps, kept and taken back in the middle, and pictures of what came out."""

    def compute(device: str) -> Tensor:
        scene, draws = SCENES[name](device), drawn(1)
        optimizer = torch.optim.Adam(scene.parameter_groups())
        for number in range(6):
            scene.before_step(number, optimizer)
            rendering = scene.render(scene.sample_cameras([draws], number), [draws])
            assert rendering.images is not None
            assert rendering.images.device.type == torch.device(device).type
            target = rendering.images.new_tensor([0.2, 0.5, 0.8])[:, None, None]
            loss = (rendering.images - target).square().sum()
            regularisation = scene.regularisation(rendering)
            optimizer.zero_grad()
            (loss if regularisation is None else loss + regularisation).backward()
            optimizer.step()
            scene.after_step(number, optimizer, [draws])
            if number == 2:
                state = {key: value.cpu().clone() for key, value in scene.state_dict().items()}
                scene.load_state_dict(state)
        assert isinstance(scene, Object3D)
        return scene.render_images(turntable_cameras(4), 16).detach().cpu()

    assert_same(device, compute)


# --- runs ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("backbone", [None, "gaussians", "nerf"])
def test_runs(
    device: str,
    backbone: Any,
    tmp_path: Path,
    tiny_prior_folder: Path,
    tiny_clip_folder: Path,
    monkeypatch: pytest.MonkeyPatch,
):
    """Two items of pictures, or an object: three steps, and all files."""
    monkeypatch.setattr("rewardsds.runs.settings.resolved_device", lambda device: device)

    def compute(device: str) -> Tensor:
        models = {"prior": str(tiny_prior_folder), "reward": str(tiny_clip_folder), "precision": "fp32"}
        settings: dict[str, Any] = {
            "out": tmp_path / device,
            "steps": 3,
            "previews_every": 2,
            "candidates": 2,
        } | models
        if backbone is None:
            given, build = TextToImageSettings(prompts=cast(Any, PROMPTS), **settings), text_to_image.build
        else:
            small = {"video_frames": 4, "video_size": 32, "camera": CameraSettings(resolution=(16,))}
            given = TextTo3DSettings(
                prompt=PROMPTS[0], backbone=backbone, nerf=SMALL_NERF, **settings, **small
            )
            build = text_to_3d.build
        result = start(given.model_copy(update={"device": device}), cast(Any, build))
        shown = [path for path in result.files if path.suffix == ".png"]
        assert (tmp_path / device / "report.html").exists()
        return torch.cat([read_picture(path, 32)[0].flatten() for path in shown])

    found, expected = compute(device), compute("cpu")
    assert (found - expected).abs().mean() < 0.02
