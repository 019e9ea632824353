"""Random Gaussians and cameras for the rasteriser's tests, and gsplat's kernels."""

import sys
from collections.abc import Callable
from dataclasses import dataclass
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor

import cuda_on_cpu
from rewardsds.scenes.cameras import sample_orbit_group
from rewardsds.scenes.gaussians import rasterization


@dataclass
class RandomScene:
    means: Tensor
    quats: Tensor
    scales: Tensor
    opacities: Tensor
    colors: Tensor
    viewmats: Tensor
    Ks: Tensor

    @property
    def parameters(self) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        return self.means, self.quats, self.scales, self.opacities, self.colors

    @property
    def arguments(self) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
        return *self.parameters, self.viewmats, self.Ks

    def copy(self, dtype: torch.dtype = torch.float32) -> "RandomScene":
        parameters = [p.detach().clone().to(dtype).requires_grad_() for p in self.parameters]
        return RandomScene(*parameters, viewmats=self.viewmats.to(dtype), Ks=self.Ks.to(dtype))


@pytest.fixture
def random_scene() -> Callable[..., RandomScene]:
    def make(
        count: int,
        seed: int,
        width: int = 40,
        height: int = 40,
        views: int = 3,
        ball: float = 0.7,
        scale: float = 0.08,
        opacity: tuple[float, float] = (0.05, 0.95),
    ) -> RandomScene:
        g = torch.Generator().manual_seed(seed)
        cameras = sample_orbit_group(g, views=views)
        low, high = opacity
        parameters = [
            ball * torch.randn(count, 3, generator=g) / 2,
            2 * torch.randn(count, 4, generator=g),
            scale * torch.exp(0.6 * torch.randn(count, 3, generator=g)),
            low + (high - low) * torch.rand(count, generator=g),
            torch.rand(count, 3, generator=g),
        ]
        return RandomScene(
            *(p.requires_grad_() for p in parameters),
            viewmats=cameras.opencv_world_to_camera()[0],
            Ks=cameras.intrinsics(width, height)[0],
        )

    return make


@pytest.fixture(
    params=[pytest.param("cpu", marks=pytest.mark.slow), pytest.param("cuda", marks=pytest.mark.cuda)]
)
def gsplat_device(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Where gsplat's kernels work: on a GPU, or, compiled for it, on the CPU. Skipped where they cannot."""
    why = rasterization.gsplat_problem() if request.param == "cuda" else cuda_on_cpu.why_not()
    if why is not None:
        pytest.skip(why)
    if request.param == "cpu":
        kernels = cuda_on_cpu.load(request.config.cache.mkdir("cuda_on_cpu"))
        monkeypatch.setitem(sys.modules, "gsplat.cuda._backend", SimpleNamespace(_C=kernels))
    return request.param
