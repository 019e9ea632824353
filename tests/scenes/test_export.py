import math
import weakref
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from PIL import Image

from rewardsds.scenes.cameras import Cameras
from rewardsds.scenes.export import (
    fitting_distance,
    render_turntable,
    save_png,
    turntable_cameras,
    turntable_frames,
    write_contact_sheet,
    write_gif,
    write_turntable,
    write_video,
    write_views,
)
from rewardsds.scenes.files import atomic_path
from rewardsds.scenes.gaussians.scene import GaussianScene
from rewardsds.scenes.gaussians.settings import GaussianSettings


def test_png_holds_the_pixels(tmp_path):
    image = torch.tensor([[[0.0, 1.0]], [[0.5, 2.0]], [[-1.0, 0.2]]])  # 3 1 2, out of range is clamped
    save_png(image, tmp_path / "new" / "picture.png")
    pixels = np.asarray(Image.open(tmp_path / "new" / "picture.png"))
    assert pixels.tolist() == [[[0, 128, 0], [255, 255, 51]]]


def decode(path) -> list[np.ndarray]:
    with av.open(str(path)) as container:
        return [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]


def test_video_has_every_frame_in_order(tmp_path):
    levels = torch.linspace(0.1, 0.9, 7)
    write_video(levels[:, None, None, None].expand(7, 3, 32, 48), tmp_path / "v.mp4", fps=12)
    frames = decode(tmp_path / "v.mp4")
    assert [frame.shape for frame in frames] == [(32, 48, 3)] * 7
    for frame, level in zip(frames, levels):
        assert frame.mean() == pytest.approx(255 * level.item(), abs=4)
    with av.open(str(tmp_path / "v.mp4")) as container:
        stream = container.streams.video[0]
        assert stream.average_rate == 12
        assert stream.codec_context.pix_fmt == "yuv420p"


def test_turntable_of_gaussians(tmp_path):
    scene = GaussianScene([torch.Generator().manual_seed(0)], GaussianSettings(initial_gaussians=200))
    write_turntable(scene.render_images, tmp_path / "t.mp4", frames=10, size=64)
    assert len(decode(tmp_path / "t.mp4")) == 10


def bar(half: float) -> GaussianScene:
    """Opaque Gaussians along x, from −half to half."""
    scene = GaussianScene([torch.Generator().manual_seed(0)], GaussianSettings(initial_gaussians=60))
    with torch.no_grad():
        scene.means.zero_()
        scene.means[:, 0] = torch.linspace(-half, half, 60)
        scene.log_scales.fill_(-3.0)
        scene.opacity_logits.fill_(4.0)
    return scene


@pytest.mark.parametrize("half, least, most", [(0.7, 1.0, 1.0), (1.4, 1.4, 1.75), (3.0, 3.0, 3.6)])
def test_no_picture_of_a_turntable_cuts_the_object(half: float, least: float, most: float):
    scene = bar(half)
    distance = fitting_distance(scene)
    assert least <= distance <= most
    alpha = scene.render(turntable_cameras(36, relative_distance=distance), size=128).alpha
    assert alpha is not None
    assert alpha[..., [0, -1]].max() < 0.5
    assert alpha[..., [0, -1], :].max() < 0.5


def test_a_wide_lens_stays_out_of_the_object():
    """At 110 degrees and a relative distance of 1 the camera is 0.7 away, within the bar."""
    scene = bar(0.9)
    distance = fitting_distance(scene, field_of_view=110.0)
    assert distance / math.tan(math.radians(55)) > 0.95
    assert fitting_distance(scene, field_of_view=20.0) == 1.0


class Renders:
    """Renders frame k of an orbit in the grey level k / 100, and keeps count."""

    def __init__(self) -> None:
        self.chunks: list[int] = []
        self.alive = 0  # pictures of earlier calls that were still there at the next, at most
        self._made: list[weakref.ref] = []

    def __call__(self, cameras: Cameras, size: int) -> torch.Tensor:
        self.alive = max(self.alive, sum(len(one[0]) for ref in self._made if (one := ref()) is not None))
        first, count = sum(self.chunks), cameras.batch_shape[1]
        levels = (first + torch.arange(count)) / 100
        pictures = levels[None, :, None, None, None].expand(1, count, 3, size, size).clone()
        self.chunks.append(count)
        self._made.append(weakref.ref(pictures))
        return pictures


def test_frames_come_one_by_one_and_large_ones_are_rendered_singly():
    for size, chunks in ((16, [8, 8, 4]), (256, [8, 8, 4]), (512, [2] * 10), (1024, [1] * 20)):
        render = Renders()
        frames = turntable_frames(render, turntable_cameras(20), size)
        first = next(frames)
        assert render.chunks == chunks[:1]  # what is not asked for yet is not made yet
        levels = [float(first[0, 0, 0]), *(float(frame[0, 0, 0]) for frame in frames)]
        assert levels == pytest.approx([frame / 100 for frame in range(20)])
        assert render.chunks == chunks
    render = Renders()
    assert render_turntable(render, turntable_cameras(20), 512, 16).shape == (20, 3, 512, 512)
    assert render.chunks == [16, 4]


def test_a_video_is_encoded_while_it_is_rendered(tmp_path):
    render = Renders()
    write_turntable(render, tmp_path / "t.mp4", frames=48, size=32)
    assert len(render.chunks) == 6
    assert render.alive <= 16  # not all 48
    levels = [frame.mean() / 255 for frame in decode(tmp_path / "t.mp4")]
    assert levels == pytest.approx([frame / 100 for frame in range(48)], abs=0.02)


def test_turntable_cameras_go_once_around():
    cameras = turntable_cameras(4, elevation=0.0, field_of_view=90.0)
    positions = cameras.camera_to_world[0, :, :3, 3]
    expected = torch.tensor([[1.0, 0, 0], [0, 1, 0], [-1, 0, 0], [0, -1, 0]])  # tan 45° = 1
    torch.testing.assert_close(positions, expected, atol=1e-6, rtol=0)


def test_contact_sheet_puts_images_row_by_row(tmp_path):
    images = [torch.full((3, 20, 30), level / 10) for level in range(5)]
    write_contact_sheet(images, tmp_path / "s.png", columns=2, captions=["a very long caption"] * 5, margin=2)
    pixels = np.asarray(Image.open(tmp_path / "s.png"))
    assert pixels.shape == (2 + 3 * (20 + 16 + 2), 2 + 2 * (30 + 2), 3)
    for index in range(5):
        y, x = 2 + (index // 2) * 38, 2 + (index % 2) * 32
        assert (pixels[y : y + 20, x : x + 30] == round(25.5 * index)).all()
    below = pixels[22:38, 2:32]
    assert below.min() < 128  # the caption
    assert (pixels[:, 32:34] == 255).all()  # is cut at the border of its cell
    assert (pixels[:, 64:] == 255).all()


def test_views_are_captioned_and_complete(tmp_path):
    def render(cameras: Cameras, size: int) -> torch.Tensor:
        return torch.zeros(1, cameras.batch_shape[1], 3, size, size)

    write_views(render, tmp_path / "views.png", views=8, size=32, columns=4)
    assert Image.open(tmp_path / "views.png").size == (4 + 4 * 36, 4 + 2 * (36 + 16))


@pytest.mark.parametrize("shape", [(2, 3, 31, 32), (2, 3, 32, 31), (0, 3, 32, 32)])
def test_impossible_videos(tmp_path, shape):
    with pytest.raises(ValueError, match=r"even height|at least one frame"):
        write_video(torch.zeros(shape), tmp_path / "v.mp4")
    assert list(tmp_path.iterdir()) == []


def test_impossible_sheets(tmp_path):
    image = torch.zeros(3, 4, 4)
    with pytest.raises(ValueError, match="at least one image"):
        write_contact_sheet([], tmp_path / "s.png")
    with pytest.raises(ValueError, match="captions"):
        write_contact_sheet([image], tmp_path / "s.png", captions=[])
    with pytest.raises(ValueError, match="one size"):
        write_contact_sheet([image, torch.zeros(3, 4, 5)], tmp_path / "s.png")
    with pytest.raises(ValueError, match=r"\(3, H, W\)"):
        save_png(torch.zeros(4, 4), tmp_path / "s.png")


def test_failure_leaves_the_older_file_and_nothing_else(tmp_path):
    path = tmp_path / "file.txt"
    path.write_text("old")

    def write_half() -> None:
        with atomic_path(path) as temporary:
            temporary.write_text("half")
            raise OSError("disk full")

    with pytest.raises(OSError, match="full"):
        write_half()
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_failing_render_leaves_no_video(tmp_path):
    def frames():
        yield torch.zeros(3, 32, 32)
        raise RuntimeError("no more")

    class Broken(list):
        shape = (2, 3, 32, 32)

        def __iter__(self):
            return frames()

    with pytest.raises(RuntimeError, match="no more"):
        write_video(Broken(), tmp_path / "v.mp4")  # type: ignore[arg-type]
    assert list(tmp_path.iterdir()) == []


def test_gif_has_the_colours_and_the_time(tmp_path):
    colours = torch.tensor([[0.9, 0.1, 0.1], [0.1, 0.8, 0.2], [0.2, 0.2, 0.9]]).repeat(8, 1)
    write_gif(colours[:, :, None, None].expand(24, 3, 16, 16), tmp_path / "a.gif", fps=24)
    with Image.open(tmp_path / "a.gif") as animation:
        total, shown = 0, []
        for index in range(animation.n_frames):  # pyright: ignore[reportAttributeAccessIssue]
            animation.seek(index)
            total += animation.info["duration"]
            shown.append(np.asarray(animation.convert("RGB"))[8, 8] / 255)
    assert total == 1000
    np.testing.assert_allclose(shown, colours.numpy(), atol=0.03)


def test_gif_needs_a_frame(tmp_path):
    with pytest.raises(ValueError, match="at least one frame"):
        write_gif(torch.zeros(0, 3, 8, 8), tmp_path / "a.gif")


@pytest.mark.parametrize("size", [64, 720])
def test_a_video_says_what_its_colours_mean(tmp_path: Path, size: int) -> None:
    """Players guess by the size where it is not said: BT.601 of small ones, BT.709 of large ones."""
    bars = torch.tensor([[0.9, 0.05, 0.1], [0.05, 0.7, 0.1], [0.1, 0.2, 0.8], [0.8, 0.8, 0.05]])
    picture = bars.T[:, None, :].repeat_interleave(size // 4, dim=2).expand(3, size, size)
    write_video([picture] * 3, tmp_path / "bars.mp4")
    with av.open(str(tmp_path / "bars.mp4")) as container:
        context = container.streams.video[0].codec_context
        said = (context.colorspace, context.color_primaries, context.color_trc, context.color_range)
        assert said == (1, 1, 1, 1)  # BT.709 three times, and the range of television
        frame = next(container.decode(video=0))
        planes = frame.reformat(format="yuv444p").to_ndarray()[:, size // 2].astype(float)  # 3, size
    # by hand, with the weights of BT.709
    y, cb, cr = (
        (planes[plane] - offset) / span
        for plane, offset, span in ((0, 16, 219), (1, 128, 224), (2, 128, 224))
    )
    red, blue = y + 1.5748 * cr, y + 1.8556 * cb
    shown = np.stack([red, (y - 0.2126 * red - 0.0722 * blue) / 0.7152, blue], -1)
    middles = shown[[size // 8 + bar * size // 4 for bar in range(4)]]
    np.testing.assert_allclose(middles, bars.numpy(), atol=0.03)


@pytest.mark.parametrize("fps", [24, 50, 60, 120])
def test_an_animation_takes_as_long_as_it_should_and_no_frame_is_too_short(tmp_path: Path, fps: int) -> None:
    frames = [torch.full((3, 8, 8), index / (2 * fps)) for index in range(2 * fps)]
    write_gif(frames, tmp_path / "turn.gif", fps)
    with Image.open(tmp_path / "turn.gif") as animation:
        lengths = []
        for index in range(animation.n_frames):
            animation.seek(index)
            lengths.append(animation.info["duration"])
    assert min(lengths) >= 20  # milliseconds: shorter ones are slowed down by browsers
    assert sum(lengths) == pytest.approx(2000, abs=20)
