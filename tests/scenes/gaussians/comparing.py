"""What two rasterisers make of a scene, and whether it is the same."""

import torch


def random(*shape):
    return torch.rand(shape, generator=torch.Generator().manual_seed(1))


def run(function, scene, width, height, **options):
    """Renders, alphas, and gradients of a random linear functional of both."""
    renders, alphas, info = function(*scene.arguments, width=width, height=height, **options)
    g = torch.Generator().manual_seed(0)
    weights = [torch.randn(shown.shape, generator=g).to(shown.device) for shown in (renders, alphas)]
    loss = (renders * weights[0]).sum() + (alphas * weights[1]).sum()
    gradients = torch.autograd.grad(loss, [*scene.parameters, info["means2d"]])
    return renders.detach(), alphas.detach(), gradients, info


def assert_same(fast, plain):
    """Rounding can tip an alpha over the 1/255 threshold in a pixel or two; all else agrees closely."""
    for a, b in zip(fast[:2], plain[:2]):
        difference = (a - b).abs()
        assert difference.max() < 2 / 255 * b.abs().max()
        assert (difference > 2e-4).float().mean() < 1e-3
    for name, a, b in zip(["means", "quats", "scales", "opacities", "colors", "means2d"], fast[2], plain[2]):
        error = (a - b).norm() / b.norm().clamp(min=1e-12)
        assert error < 2e-3, f"gradient of {name}: relative error {error:.2e}"
