"""A mesh whose texture is optimised: DreamGaussian's second stage (arXiv 2309.16653, section 3.3)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
import trimesh
from torch import Tensor
from torch.nn import Parameter

from rewardsds.scenes.base import Rendering
from rewardsds.scenes.cameras import Cameras
from rewardsds.scenes.mesh.bake import dilated
from rewardsds.scenes.mesh.rasterise import Fragments, atlas_texels, rasterise
from rewardsds.scenes.mesh.settings import MeshSettings
from rewardsds.scenes.mesh.textured import TexturedMesh, check_triangles, resampled, sample_texture
from rewardsds.scenes.object3d import RADIUS, Colour, Object3D
from rewardsds.scenes.settings import BackgroundSettings, CameraSettings

CLOSEST_TO_PURE = 1e-3  # texture values keep this distance from 0 and 1, where logits are infinite
CHUNK = 20_000  # points whose distance to the mesh is asked for at once


class MeshScene(Object3D):
    """One object made of fixed triangles. Optimised are the logits (3, T, T) of its texture.

    Any guidance may refine it; with a reward the refinement is reward-weighted like everything else.
    """

    vertices: Tensor
    faces: Tensor
    uvs: Tensor
    texture_logits: Parameter

    def __init__(
        self,
        mesh: TexturedMesh | None = None,
        settings: MeshSettings | None = None,
        *,
        camera: CameraSettings | None = None,
        background: BackgroundSettings | None = None,
        device: torch.device | str = "cpu",
    ) -> None:
        """mesh: None is a single grey triangle, until `start_from` or `load_state_dict` brings another."""
        super().__init__(camera, background, device)
        self.settings = settings or MeshSettings()
        self.start_from(mesh or _triangle())

    def start_from(self, mesh: TexturedMesh) -> None:
        """Takes another mesh over. Build the optimiser after this, not before."""
        texture = resampled(mesh.texture, self.settings.texture_size or mesh.texture.shape[-1])
        limited = texture.clamp(CLOSEST_TO_PURE, 1 - CLOSEST_TO_PURE)
        self._adopt(mesh.vertices, mesh.faces, mesh.uvs, limited.logit())

    def _adopt(self, vertices: Tensor, faces: Tensor, uvs: Tensor, logits: Tensor) -> None:
        self.vertices = vertices.to(self.device, torch.float32).clone()
        self.faces = faces.to(self.device).clone()
        self.uvs = uvs.to(self.device, torch.float32).clone()
        self.texture_logits = Parameter(logits.to(self.device, torch.float32).clone())
        mask = atlas_texels(self.uvs, self.faces, logits.shape[-1]).mask[0]
        self._covered = mask.cpu()
        self._beside = mask[:, 1:] & mask[:, :-1]  # neighbours that both belong to triangles
        self._below = mask[1:] & mask[:-1]

    def texture(self) -> Tensor:
        """(3, T, T) in [0, 1]; carries gradient."""
        return self.texture_logits.sigmoid()

    def textured_mesh(self) -> TexturedMesh:
        """The mesh as it is now, on the CPU.

        What lies between the charts gets the nearest texel's colour: no gradient reaches most of it, and coarser levels
        of a viewer's texture would mix in what was there before.
        """
        texture = dilated(self.texture().detach().cpu().permute(1, 2, 0), self._covered).permute(2, 0, 1)
        parts = (self.vertices, self.faces, self.uvs, texture.contiguous())
        return TexturedMesh(*(part.cpu().clone() for part in parts))

    @property
    def reach(self) -> float:
        """As `Object3D.reach`."""
        return max(RADIUS, float(self.vertices.norm(dim=-1).max())) if len(self.vertices) else RADIUS

    # --- seeing -----------------------------------------------------------------------------------------

    def render(
        self,
        cameras: Cameras | None,
        generators: Sequence[torch.Generator] | None = None,
        size: int | None = None,
        background: Colour | None = None,
    ) -> Rendering:
        """As `Object3D.render`; depth is the mean over what a pixel shows of the mesh, 0 where nothing is.

        The gradient reaches the texture alone. One background colour is drawn for all views of a group.
        """
        cameras, groups, views = self.groups_and_views(cameras)
        fine = (size or self.resolution) * self.settings.supersampling
        behind = torch.stack([self.plain_background(generators, background) for _ in range(groups)])
        flat = Cameras(cameras.camera_to_world.flatten(0, 1), cameras.field_of_view.flatten())
        fragments = rasterise(self.vertices, self.faces, flat, fine, fine)
        texture = self.texture()
        images, alphas, depths = [], [], []
        for view in range(groups * views):
            image, alpha, depth = self._shaded(_one(fragments, view), texture, behind[view // views])
            images.append(image)
            alphas.append(alpha)
            depths.append(depth)
        shape = (groups, views)
        return Rendering(
            images=torch.stack(images).unflatten(0, shape),
            alpha=torch.stack(alphas).unflatten(0, shape),
            depth=torch.stack(depths).unflatten(0, shape),
        )

    def _shaded(self, fragments: Fragments, texture: Tensor, behind: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Image (3, S, S), alpha (1, S, S) and depth (1, S, S) of one view, samples averaged over pixels."""
        mask = fragments.mask[0]
        colours = sample_texture(texture, fragments.interpolate(self.faces, self.uvs))
        image = behind.expand(*mask.shape, 3).clone()
        image[mask] = colours

        def averaged(values: Tensor) -> Tensor:
            return torch.nn.functional.avg_pool2d(values[None], self.settings.supersampling)[0]

        alpha = averaged(mask[None].float())
        depth = averaged(fragments.depth) / alpha.clamp(min=1e-6)
        return averaged(image.permute(2, 0, 1)), alpha, depth

    # --- its shape --------------------------------------------------------------------------------------

    @torch.no_grad()
    def density(self, points: Tensor) -> Tensor:
        """Signed distance to the surface, positive inside; a closed surface is expected. Takes about a millisecond for
        ten points."""
        mesh = self._as_trimesh()
        parts = [
            trimesh.proximity.signed_distance(mesh, part.double().cpu().numpy())
            for part in points.split(CHUNK)
        ]
        return torch.cat([torch.from_numpy(part).float() for part in parts]).to(points.device)

    @torch.no_grad()
    def colour(self, points: Tensor) -> Tensor:
        """The texture at the surface point that is closest."""
        mesh, texture = self._as_trimesh(), self.texture()
        found = []
        for part in points.split(CHUNK):
            closest, _, triangle = trimesh.proximity.closest_point(mesh, part.double().cpu().numpy())
            corners = mesh.triangles[triangle]
            barycentric = trimesh.triangles.points_to_barycentric(corners, closest)
            own = self.uvs[self.faces[torch.from_numpy(triangle).to(self.device)]]  # P 3 2
            weights = torch.from_numpy(barycentric).float().to(self.device).clamp(0, 1)
            found.append(sample_texture(texture, (own * weights[..., None]).sum(1)))
        return torch.cat(found).to(points.device)

    def _as_trimesh(self) -> trimesh.Trimesh:
        """With vertices of one place merged, so that the surface is closed across the seams of its atlas; faces keep
        their order."""
        places, same = torch.unique(self.vertices.cpu(), dim=0, return_inverse=True)
        return trimesh.Trimesh(
            places.double().numpy(), same[self.faces.cpu()].numpy(), process=False, validate=False
        )

    # --- optimising -------------------------------------------------------------------------------------

    def parameter_groups(self) -> list[dict[str, Any]]:
        rate = self.settings.texture_learning_rate
        return [{"params": [self.texture_logits], "lr": rate, "name": "texture_logits"}]

    def regularisation(self, rendering: Rendering) -> Tensor | None:
        """Total variation of the texture, over neighbouring texels that both belong to triangles."""
        if not self.settings.total_variation_weight:
            return None
        texture = self.texture()
        across = ((texture[:, :, 1:] - texture[:, :, :-1]).abs() * self._beside).sum()
        down = ((texture[:, 1:] - texture[:, :-1]).abs() * self._below).sum()
        return self.settings.total_variation_weight * (across + down)

    # --- keeping ----------------------------------------------------------------------------------------

    def state_dict(self) -> Mapping[str, Tensor]:
        """The texture and the geometry, so that a run resumes from its checkpoint alone."""
        return {
            "vertices": self.vertices,
            "faces": self.faces,
            "uvs": self.uvs,
            "texture_logits": self.texture_logits.detach(),
        }

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Takes back `state_dict()`, also of another mesh. Build the optimiser after this, not before.

        Raises ValueError when tensors are missing, are too many, do not fit together, or are not finite.
        """
        names = self.state_dict().keys()
        if missing := sorted(names - state.keys()):
            raise ValueError(f"the state of a mesh lacks {', '.join(missing)}")
        if surplus := sorted(state.keys() - names):
            raise ValueError(f"the state of a mesh does not have {', '.join(surplus)}")
        vertices, faces, uvs, logits = (
            state[name] for name in ("vertices", "faces", "uvs", "texture_logits")
        )
        check_triangles(vertices, faces)
        if uvs.shape != (len(vertices), 2):
            raise ValueError(f"uvs has shape {tuple(uvs.shape)}, expected ({len(vertices)}, 2)")
        if logits.shape != (3, logits.shape[-1], logits.shape[-1]):
            raise ValueError(f"texture_logits has shape {tuple(logits.shape)}, expected (3, T, T)")
        for name in ("uvs", "texture_logits"):
            if not bool(state[name].isfinite().all()):
                raise ValueError(f"{name} holds NaN or infinite values")
        self._adopt(vertices, faces, uvs, logits)


def _one(fragments: Fragments, view: int) -> Fragments:
    part = slice(view, view + 1)
    return Fragments(fragments.triangle[part], fragments.barycentric[part], fragments.depth[part])


def _triangle() -> TexturedMesh:
    corners = torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    vertices = torch.cat([torch.zeros(3, 1), corners - 0.5], dim=-1)
    return TexturedMesh(vertices, torch.tensor([[0, 1, 2]]), corners, torch.full((3, 16, 16), 0.5))
