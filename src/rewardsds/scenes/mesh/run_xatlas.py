"""xatlas as a process that can be ended: `python -m rewardsds.scenes.mesh.run_xatlas MESH.npz ATLAS.npz`."""

from __future__ import annotations

import sys

import numpy as np
import xatlas


def main(given: str, made: str) -> None:
    """Reads vertices, faces, size and padding; writes index, faces and uvs (v down), as `atlas.unwrap` has them."""
    with np.load(given) as mesh:
        vertices, faces = mesh["vertices"], mesh["faces"]
        size, padding = int(mesh["size"]), int(mesh["padding"])
    atlas = xatlas.Atlas()
    atlas.add_mesh(vertices, faces)
    options = xatlas.PackOptions()
    options.resolution = size
    options.padding = padding
    options.bilinear = True
    atlas.generate(pack_options=options)
    index, new_faces, uvs = atlas[0]
    # Several sheets would lie on each other in one texture: then everything is packed into a single one.
    if atlas.atlas_count > 1:
        options.resolution = 0
        options.texels_per_unit = 0.0
        atlas = xatlas.Atlas()
        atlas.add_mesh(vertices, faces)
        atlas.generate(pack_options=options)
        index, new_faces, uvs = atlas[0]
    np.savez(made, index=index, faces=new_faces, uvs=uvs)


if __name__ == "__main__":
    main(*sys.argv[1:])
