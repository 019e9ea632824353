"""A page that shows a mesh in 3D, with no server and no network."""

from __future__ import annotations

import base64
import os
from importlib import resources

import jinja2

from rewardsds.scenes.files import atomic_path
from rewardsds.scenes.mesh.files import glb_bytes
from rewardsds.scenes.mesh.textured import TexturedMesh


def write_html(mesh: TexturedMesh | bytes, path: str | os.PathLike[str], title: str = "object") -> None:
    """One self-contained page: orbit by mouse, touch or arrow keys, zoom by wheel or pinch; a button saves the GLB.

    mesh: a mesh, or a GLB as `glb_bytes` makes it. The page needs WebGL 2, which all browsers have, and says so where
    it is missing. trimesh's own viewer is not used: it lights the colours, which are lit already, is 0.7 MB large and
    has no touch orbit that keeps the object upright.
    """
    data = mesh if isinstance(mesh, bytes) else glb_bytes(mesh)
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined)
    template = environment.from_string(
        resources.files("rewardsds.scenes.mesh").joinpath("viewer.html.jinja").read_text(encoding="utf-8")
    )
    page = template.render(title=title, glb=base64.b64encode(data).decode("ascii"))
    with atomic_path(path) as temporary:
        temporary.write_text(page, encoding="utf-8")
