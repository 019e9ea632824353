"""Gaussians that start from a surface or a file instead of a ball."""

from __future__ import annotations

import os

import torch
from scipy.spatial import KDTree
from torch import Tensor

from rewardsds.scenes.gaussians import harmonics as sh
from rewardsds.scenes.gaussians.ply import read_blur, read_ply
from rewardsds.scenes.gaussians.settings import MAXIMUM_GAUSSIANS, GaussianSettings
from rewardsds.scenes.object3d import START_RADIUS, into_ball

NEIGHBOURS = 3  # whose distances give a Gaussian its size (arXiv 2308.04079, section 5.1)
FLATNESS = 0.3  # thickness along a normal, as a share of the extent along the surface
SMALLEST_SCALE = 1e-4
INNER = 0.999  # of the bounds, where they are narrow: what starts in them is not removed by rounding
COLOUR_MARGIN = 1e-3  # black and white stay within reach of a gradient


def start_radius(settings: GaussianSettings) -> float:
    """Of the ball that what lies out of the settings' bounds is brought into."""
    return min(START_RADIUS, INNER * settings.bounds)


def check_room(settings: GaussianSettings, name: str, number: int) -> None:
    """Raises ValueError where a file or a run holds more Gaussians than the settings' max_gaussians."""
    if number > settings.max_gaussians:
        raise ValueError(
            f"{name} holds {number:,} Gaussians, max_gaussians is {settings.max_gaussians:,}: raise max_gaussians"
        )


def brought_in(settings: GaussianSettings, name: str, means: Tensor, scales: Tensor) -> tuple[Tensor, Tensor]:
    """Means (N, 3) and scales (N, 3) where none lies out of bounds: as they are, or all of them moved and made smaller.

    Raises ValueError where all lie at one place, out of bounds."""
    if float(means.norm(dim=-1).max()) <= settings.bounds:
        return means, scales
    try:
        fit = into_ball(means, start_radius(settings))
    except ValueError as error:
        raise ValueError(f"{name} has no extent: {error}") from None
    return fit.moved(means), scales * fit.factor


def unblurred(scales: Tensor, blur: float) -> Tensor:
    """Log scales (N, 3) of Gaussians that have these standard deviations once a variance is added to them, or as nearly
    so as can be."""
    return (scales.double().square() - blur).clamp(min=SMALLEST_SCALE**2).log().mul(0.5).float()


def from_points(
    settings: GaussianSettings,
    points: Tensor,
    colours: Tensor,
    generator: torch.Generator,
    normals: Tensor | None = None,
) -> dict[str, Tensor]:
    """Parameters of Gaussians at points (M, 3) of a surface, with colours (M, 3) in [0, 1].

    Of more than max_gaussians points as many are drawn with the CPU generator. Standard deviations are the root mean
    square of the distances to the three nearest neighbours, the opacity is the settings' initial one. With normals
    (M, 3), of any length, Gaussians are flat along them; without, round. Raises ValueError where shapes do not fit,
    values are not finite, there are no points or more than five million, or they lie out of the settings' bounds.
    """
    given = {"points": points, "colours": colours} | ({} if normals is None else {"normals": normals})
    for name, tensor in given.items():
        if tensor.ndim != 2 or tensor.shape != (len(points), 3):
            raise ValueError(f"{name} have shape {tuple(tensor.shape)}, expected ({len(points)}, 3)")
    if not 1 <= len(points) <= MAXIMUM_GAUSSIANS:
        raise ValueError(f"a start from {len(points):,} points: expected 1 to {MAXIMUM_GAUSSIANS:,}")
    for name, tensor in given.items():
        if not bool(tensor.isfinite().all()):
            raise ValueError(f"the {name} to start from hold NaN or infinity")
    p, c = points.detach().float().cpu(), colours.detach().float().cpu()
    farthest = float(p.norm(dim=-1).max())
    if farthest > settings.bounds:
        raise ValueError(
            f"the points to start from reach {farthest:.3g} from the origin, but Gaussians beyond {settings.bounds:g} "
            f"(bounds) are removed: scale it into a ball of radius {start_radius(settings):.3g} around the origin"
        )
    chosen = torch.arange(len(p))
    if len(p) > settings.max_gaussians:
        chosen = torch.randperm(len(p), generator=generator)[: settings.max_gaussians].sort().values
    p, c = p[chosen], c[chosen]
    scales = _neighbour_distance(p, settings)[:, None].repeat(1, 3)
    quats = torch.tensor([1.0, 0.0, 0.0, 0.0]).repeat(len(p), 1)
    if normals is not None:
        n = torch.nn.functional.normalize(normals.detach().float().cpu()[chosen], dim=-1)
        quats = _turned_to(n)
        scales[:, 2] *= FLATNESS
    return {
        "means": p,
        "log_scales": scales.clamp(min=SMALLEST_SCALE).log(),
        "quats": quats,
        "opacity_logits": torch.full((len(p),), settings.initial_opacity).logit(),
        "colour_logits": c.clamp(COLOUR_MARGIN, 1 - COLOUR_MARGIN).logit(),
    }


def from_ply(
    settings: GaussianSettings, path: str | os.PathLike[str], blur: float
) -> tuple[dict[str, Tensor], int]:
    """Parameters of the Gaussians of a 3DGS PLY, and the degree of their spherical harmonics.

    blur: the variance that renders add to them, world units². None is left out, and they stay where they are. Only if
    some lie out of the settings' bounds, where they would be removed, all are brought into the ball of `start_radius`,
    which changes their pictures in scale alone. Of the spherical harmonics those above the settings' sh_degree are
    dropped. Scales of our files hold the blur of the run that wrote them, as `write_ply` notes: what renders add is
    taken out of them, and they look as there. Raises ValueError for a file that cannot be read, and where there are
    more Gaussians than the settings' max_gaussians.
    """
    g = read_ply(path)
    number = len(g["means"])
    check_room(settings, str(path), number)
    functions = sh.count(settings.sh_degree)
    degree = min(sh.degree_of(g["harmonics"].shape[1]), settings.sh_degree)
    coefficients = torch.zeros(number, functions, 3)
    coefficients[:, : sh.count(degree)] = g["harmonics"][:, : sh.count(degree)]
    while degree and not bool(coefficients[:, sh.count(degree - 1) : sh.count(degree)].any()):
        degree -= 1  # files are padded with zeros
    means, scales = brought_in(settings, str(path), g["means"], g["scales"])
    log_scales = unblurred(scales, blur) if read_blur(path) else scales.clamp(min=SMALLEST_SCALE).log()
    values = {
        "means": means,
        "log_scales": log_scales,
        "quats": g["quats"],
        "opacity_logits": g["opacities"].clamp(1e-6, 1 - 1e-6).logit(),
        "colour_logits": g["colours"].clamp(COLOUR_MARGIN, 1 - COLOUR_MARGIN).logit(),
        "harmonics": coefficients,
    }
    return values, degree


def _neighbour_distance(points: Tensor, settings: GaussianSettings) -> Tensor:
    """Root mean square distance (M,) to the nearest other places; a lone one gets the size that a ball of one would."""
    places, own = torch.unique(points.double(), dim=0, return_inverse=True)  # clouds often say a place twice
    neighbours = min(NEIGHBOURS, len(places) - 1)
    if neighbours == 0:
        return torch.full((len(points),), settings.initial_scale * settings.initial_radius)
    distances, _ = KDTree(places.numpy()).query(places.numpy(), k=neighbours + 1)
    return torch.from_numpy(distances[:, 1:]).square().mean(-1).sqrt().float()[own]


def _turned_to(normals: Tensor) -> Tensor:
    """Unit quaternions (M, 4) wxyz that turn the z axis to unit normals (M, 3)."""
    x, y, z = normals.unbind(-1)
    quats = torch.stack([1 + z, -y, x, torch.zeros_like(z)], dim=-1)
    opposite = quats.norm(dim=-1, keepdim=True) < 1e-3
    upside_down = torch.tensor([0.0, 1.0, 0.0, 0.0])
    return torch.nn.functional.normalize(torch.where(opposite, upside_down, quats), dim=-1)
