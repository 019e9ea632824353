import re
from pathlib import Path

import pytest
import torch
from PIL import Image
from test_mesh_files import tetrahedron

from outside_programs import browser
from rewardsds.scenes.mesh.files import glb_bytes
from rewardsds.scenes.mesh.textured import TexturedMesh
from rewardsds.scenes.mesh.viewer import write_html

TITLE = 'a "penguin" <script>alert(1)</script> & hat'


def test_the_page_is_self_contained_and_its_title_escaped(tmp_path: Path):
    write_html(tetrahedron(), tmp_path / "a.html", TITLE)
    page = (tmp_path / "a.html").read_text(encoding="utf-8")
    assert "<script>alert" not in page
    assert "<title>a &#34;penguin&#34; &lt;script&gt;alert(1)&lt;/script&gt; &amp; hat</title>" in page
    assert not re.search(r"https?://|//cdn|\bimport\b|fetch\(", page)
    write_html(glb_bytes(tetrahedron()), tmp_path / "b.html", TITLE)
    assert (tmp_path / "b.html").read_text(encoding="utf-8") == page


def board() -> TexturedMesh:
    """A square that faces the viewer at home (+X), one plain colour on each side."""
    corners = torch.tensor([[0.0, -0.6, -0.6], [0.0, 0.6, -0.6], [0.0, 0.6, 0.6], [0.0, -0.6, 0.6]])
    vertices = torch.cat([corners, corners - torch.tensor([0.01, 0.0, 0.0])])
    faces = torch.tensor([[0, 1, 2], [0, 2, 3], [4, 6, 5], [4, 7, 6]])
    uvs = torch.cat([torch.full((4, 2), 0.25), torch.full((4, 2), 0.75)])
    texture = torch.empty((3, 8, 8))
    texture[:] = torch.tensor([200, 120, 40])[:, None, None] / 255
    texture[:, 4:] = torch.tensor([30, 90, 210])[:, None, None] / 255
    return TexturedMesh(vertices, faces, uvs, texture)


def shown(page: Path, tmp_path: Path, size: str = "400,300") -> Image.Image:
    picture = tmp_path / "shot.png"
    browser([f"--screenshot={picture}", f"--window-size={size}", page.as_uri()], tmp_path)
    return Image.open(picture).convert("RGB")


def near(colour: object, wanted: tuple[int, int, int]) -> bool:
    assert isinstance(colour, tuple)
    return all(abs(one - other) <= 2 for one, other in zip(colour, wanted))


@pytest.mark.slow
def test_a_browser_shows_the_colours_as_they_are(tmp_path: Path):
    write_html(board(), tmp_path / "a.html", TITLE)
    picture = shown(tmp_path / "a.html", tmp_path)
    assert near(picture.getpixel((200, 150)), (200, 120, 40))
    # the background is light, and the object does not reach the border
    for corner in ((2, 150), (397, 150), (80, 150), (330, 150)):
        colour = picture.getpixel(corner)
        assert isinstance(colour, tuple)
        assert min(colour) > 200
    assert near(shown(tmp_path / "a.html", tmp_path, "300,600").getpixel((150, 300)), (200, 120, 40))


@pytest.mark.slow
def test_dragging_turns_the_object(tmp_path: Path):
    """Half a turn: π / 0.008 pixels; then the other side is seen."""
    write_html(board(), tmp_path / "a.html")
    page = (tmp_path / "a.html").read_text(encoding="utf-8")
    drag = """<script>
      const target = document.querySelector("canvas");
      target.setPointerCapture = () => {};
      const send = (kind, x) => target.dispatchEvent(new PointerEvent(kind, { pointerId: 7, clientX: x, clientY: 9 }));
      const wait = setInterval(() => {
        if (document.body.dataset.state !== "shown") return;
        clearInterval(wait);
        send("pointerdown", 0); send("pointermove", 393); send("pointerup", 393);
      }, 50);
    </script></body>"""
    (tmp_path / "b.html").write_text(page.replace("</body>", drag), encoding="utf-8")
    assert near(shown(tmp_path / "b.html", tmp_path).getpixel((200, 150)), (30, 90, 210))


@pytest.mark.slow
def test_a_broken_object_is_told(tmp_path: Path):
    write_html(glb_bytes(board()).replace(b"POSITION", b"XXSITION"), tmp_path / "a.html")
    page = browser(["--dump-dom", (tmp_path / "a.html").as_uri()], tmp_path)
    assert 'data-state="failed"' in page
    assert "the object cannot be shown" in page


def box() -> TexturedMesh:
    """A cube of which what is seen from home is orange, and what is behind it blue."""
    ends = (-0.5, 0.5)
    corners = torch.tensor([[x, y, z] for x in ends for y in ends for z in ends])
    sides = [(4, 6, 7, 5), (2, 3, 7, 6), (1, 5, 7, 3), (0, 1, 3, 2), (0, 4, 5, 1), (0, 2, 6, 4)]
    vertices = corners[torch.tensor(sides)].flatten(0, 1)
    faces = torch.tensor(
        [[4 * s + a, 4 * s + b, 4 * s + c] for s in range(6) for a, b, c in ((0, 1, 2), (0, 2, 3))]
    )
    uvs = torch.cat([torch.full((12, 2), 0.25), torch.full((12, 2), 0.75)])
    return TexturedMesh(vertices, faces, uvs, board().texture)


@pytest.mark.slow
@pytest.mark.parametrize(
    "script",
    [
        # as near as it goes: still before the object, not in it
        'canvas.dispatchEvent(new WheelEvent("wheel", { deltaY: -9000 }))',
        # the browser takes the memory away, as of pages that are not looked at, and gives it back
        'const lost = canvas.getContext("webgl2").getExtension("WEBGL_lose_context"); lost.loseContext(); '
        "setTimeout(() => lost.restoreContext(), 500)",
    ],
    ids=["near", "lost and given back"],
)
def test_the_object_stays_in_sight(script: str, tmp_path: Path):
    write_html(box(), tmp_path / "a.html", TITLE)
    page = (tmp_path / "a.html").read_text(encoding="utf-8")
    later = f'<script>setTimeout(() => {{ const canvas = document.querySelector("canvas"); {script} }}, 1500)</script>'
    (tmp_path / "b.html").write_text(page.replace("</body>", f"{later}</body>"), encoding="utf-8")
    assert near(shown(tmp_path / "b.html", tmp_path).getpixel((200, 150)), (200, 120, 40))
