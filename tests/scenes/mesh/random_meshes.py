"""Textured meshes for property tests."""

from __future__ import annotations

import torch
from hypothesis import strategies as st

from rewardsds.scenes.mesh.textured import TexturedMesh


@st.composite
def textured_meshes(draw: st.DrawFn) -> TexturedMesh:
    """A few triangles anywhere, with any atlas, and a texture of 8-bit colours."""
    g = torch.Generator().manual_seed(draw(st.integers(0, 2**31)))
    count, faces, size = draw(st.integers(3, 12)), draw(st.integers(1, 9)), draw(st.sampled_from([2, 3, 16]))
    picked = torch.stack([torch.randperm(count, generator=g)[:3] for _ in range(faces)])
    return TexturedMesh(
        torch.randn((count, 3), generator=g) * draw(st.sampled_from([1e-3, 1.0, 1e3])),
        picked,
        torch.rand((count, 2), generator=g),
        torch.randint(256, (3, size, size), generator=g) / 255,
    )
