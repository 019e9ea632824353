"""What a person looks at: turntable videos, contact sheets, pictures. Files appear only when complete."""

from __future__ import annotations

import itertools
import math
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from fractions import Fraction

import av
import numpy as np
import torch
from av.video.reformatter import ColorPrimaries, ColorRange, Colorspace, ColorTrc
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from rewardsds.scenes.cameras import Cameras, orbit
from rewardsds.scenes.files import atomic_path
from rewardsds.scenes.object3d import Object3D

RenderImages = Callable[[Cameras, int], Tensor]
"""Renders cameras (1, V) to images (1, V, 3, size, size) in [0, 1]: a scene's `render_images`."""
OPAQUE = 0.5  # alpha from which on a picture shows a part of the object that should not be cut
GIF_FASTEST = 50  # frames a second
AT_ONCE = 8 * 256**2  # pixels of views that are rendered together, where pictures are wanted one by one


def turntable_cameras(
    frames: int = 72,
    elevation: float = 15.0,
    field_of_view: float = 40.0,
    relative_distance: float = 1.0,
    start_azimuth: float = 0.0,
) -> Cameras:
    """Cameras (1, frames), evenly around the origin from `start_azimuth` on; angles in degrees.

    The distance is relative_distance / tan(field_of_view / 2), as in `sample_orbit_group`.
    """
    if frames < 1:
        raise ValueError(f"a turntable needs at least one frame, got {frames}")
    azimuth = math.radians(start_azimuth) + torch.arange(frames) * (2 * math.pi / frames)
    fov = torch.tensor(math.radians(field_of_view))
    distance = relative_distance / torch.tan(0.5 * fov)
    cameras = orbit(azimuth, torch.tensor(math.radians(elevation)), distance, fov)
    return Cameras(cameras.camera_to_world[None], cameras.field_of_view[None])


def fitting_distance(
    one: Object3D, elevation: float = 15.0, field_of_view: float = 40.0, views: int = 12, size: int = 64
) -> float:
    """The relative distance of a turntable whose pictures do not cut what is opaque of an object: 1, or more.

    It is looked for at `views` azimuths, in pictures of `size` pixels; angles in degrees.
    """
    distance, farthest = 1.0, one.reach / math.cos(math.radians(0.5 * field_of_view))
    while distance < farthest:
        cameras = turntable_cameras(views, elevation, field_of_view, distance).to(one.device)
        with torch.no_grad():
            alpha = one.render(cameras, size=size).alpha
        if alpha is None:
            break
        border = torch.cat([alpha[..., [0, -1], :].flatten(), alpha[..., [0, -1]].flatten()])
        if not bool((border > OPAQUE).any()):
            break
        distance = min(1.1 * distance, farthest)
    return distance


def to_bytes(image: Tensor) -> np.ndarray:
    """(3, H, W) in [0, 1] (clamped) → (H, W, 3) uint8."""
    if image.ndim != 3 or image.shape[0] != 3:
        raise ValueError(f"expected an image of shape (3, H, W), got {tuple(image.shape)}")
    pixels = image.detach().float().cpu().nan_to_num(0.0).clamp(0, 1).permute(1, 2, 0)
    return (pixels * 255).round().to(torch.uint8).contiguous().numpy()


def save_png(image: Tensor, path: str | os.PathLike[str]) -> None:
    """Write an image (3, H, W) in [0, 1] as an 8-bit PNG."""
    picture = Image.fromarray(to_bytes(image))
    with atomic_path(path) as temporary:
        picture.save(temporary, format="PNG")


def turntable_frames(
    render: RenderImages, cameras: Cameras, size: int, chunk: int | None = None
) -> Iterator[Tensor]:
    """Images (3, size, size) of cameras (1, frames), one by one: only `chunk` of them are there at a time.

    chunk: 8, and of pictures larger than 256 pixels fewer, where None is given.
    """
    chunk = chunk or max(1, min(8, AT_ONCE // size**2))
    for start in range(0, cameras.batch_shape[1], chunk):
        with torch.no_grad():
            images = render(cameras[:, start : start + chunk], size)[0].float().cpu()
        yield from images


def render_turntable(render: RenderImages, cameras: Cameras, size: int, chunk: int = 8) -> Tensor:
    """Images (frames, 3, size, size) of cameras (1, frames), rendered `chunk` at a time to bound memory."""
    return torch.stack(list(turntable_frames(render, cameras, size, chunk)))


def write_turntable(
    render: RenderImages,
    path: str | os.PathLike[str],
    frames: int = 72,
    size: int = 256,
    elevation: float = 15.0,
    fps: int = 24,
    field_of_view: float = 40.0,
    relative_distance: float = 1.0,
) -> None:
    """Render once around the object and write the MP4; `size` in pixels must be even, angles in degrees."""
    cameras = turntable_cameras(frames, elevation, field_of_view, relative_distance)
    write_video(turntable_frames(render, cameras, size), path, fps)


def write_video(images: Iterable[Tensor], path: str | os.PathLike[str], fps: int = 24) -> None:
    """Write frames, each (3, H, W) in [0, 1], as MP4, H.264 where FFmpeg has it and else MPEG-4, yuv420p of BT.709.

    They are taken one by one, so that those of a long video need not be there together.
    """
    frames = iter(images)
    first = next(frames, None)
    if first is None:
        raise ValueError("a video needs at least one frame, got none")
    height, width = first.shape[-2:]
    if height % 2 or width % 2:
        raise ValueError(f"video frames need an even height and width, got {height}×{width}")
    codec = "libx264" if "libx264" in av.codecs_available else "mpeg4"
    with atomic_path(path) as temporary, av.open(str(temporary), mode="w", format="mp4") as container:
        stream = container.add_stream(codec, rate=Fraction(fps))
        assert isinstance(stream, av.VideoStream)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        # said, since players guess otherwise, and guess by the size
        stream.color_primaries, stream.color_trc = ColorPrimaries.BT709, ColorTrc.BT709
        stream.colorspace, stream.color_range = Colorspace.ITU709, ColorRange.MPEG
        if codec == "libx264":
            # one thread, so that the same frames always give the same bytes
            stream.options = {"crf": "18", "preset": "medium", "threads": "1"}
        else:
            stream.bit_rate = 8 * width * height * fps // 10
        for image in itertools.chain([first], frames):
            frame = av.VideoFrame.from_ndarray(to_bytes(image), format="rgb24")
            frame = frame.reformat(
                format="yuv420p", dst_colorspace=Colorspace.ITU709, dst_color_range=ColorRange.MPEG
            )
            container.mux(stream.encode(frame))
        container.mux(stream.encode())


def write_gif(images: Iterable[Tensor], path: str | os.PathLike[str], fps: int = 24) -> None:
    """Write frames, each (3, H, W) in [0, 1], as an animation that repeats; a GIF counts time in hundredths of a
    second.

    Browsers slow down what is shorter than two of them: of more than 50 frames a second as many are left out.
    """
    every = max(1.0, fps / GIF_FASTEST)
    kept = (
        image
        for index, image in enumerate(images)
        if int(index / every) != int((index - 1) / every) or not index
    )
    frames = [Image.fromarray(to_bytes(image)) for image in kept]
    if not frames:
        raise ValueError("an animation needs at least one frame, got none")
    # one palette for all frames, so that colours do not flicker
    small = [np.asarray(frame.resize((64, 64), Image.Resampling.NEAREST)) for frame in frames]
    sample = Image.fromarray(np.concatenate(small))
    palette = sample.quantize(255, method=Image.Quantize.MEDIANCUT)
    indexed = [frame.quantize(palette=palette, dither=Image.Dither.FLOYDSTEINBERG) for frame in frames]
    # rounded ends, not rounded lengths: a long turn takes as long as it should
    ends = [round(100 * (index + 1) * every / fps) for index in range(len(frames))]
    lengths = [10 * max(1, end - start) for start, end in zip([0, *ends], ends)]
    with atomic_path(path) as temporary:
        indexed[0].save(
            temporary, format="GIF", save_all=True, append_images=indexed[1:], duration=lengths, loop=0
        )


def write_contact_sheet(
    images: Iterable[Tensor],
    path: str | os.PathLike[str],
    columns: int = 4,
    captions: Sequence[str] | None = None,
    margin: int = 4,
) -> None:
    """Write images, each (3, H, W) in [0, 1] and all of one size, as a grid in one PNG, row by row.

    captions: one per image, written below it and cut where they would leave its cell.
    """
    if columns < 1:
        raise ValueError(f"a contact sheet needs at least one column, got {columns}")
    tiles = [to_bytes(image) for image in images]
    if not tiles:
        raise ValueError("a contact sheet needs at least one image, got none")
    if captions is not None and len(captions) != len(tiles):
        raise ValueError(f"{len(captions)} captions were given for {len(tiles)} images")
    height, width = tiles[0].shape[:2]
    if any(tile.shape != tiles[0].shape for tile in tiles):
        raise ValueError("the images of a contact sheet must have one size")
    font = ImageFont.load_default(size=12)
    band = 16 if captions is not None else 0
    columns = min(columns, len(tiles))
    rows = math.ceil(len(tiles) / columns)
    cell_width, cell_height = width + margin, height + band + margin
    sheet = Image.new("RGB", (columns * cell_width + margin, rows * cell_height + margin), "white")
    draw = ImageDraw.Draw(sheet)
    for index, tile in enumerate(tiles):
        x = margin + (index % columns) * cell_width
        y = margin + (index // columns) * cell_height
        sheet.paste(Image.fromarray(tile), (x, y))
        if captions is not None:
            draw.text((x, y + height), shortened(captions[index], width, font), fill="black", font=font)
    with atomic_path(path) as temporary:
        sheet.save(temporary, format="PNG")


def shortened(text: str, width: int, font: ImageFont.FreeTypeFont | ImageFont.ImageFont) -> str:
    """The text, cut where it is longer than so many pixels."""
    if font.getlength(text) <= width:
        return text
    while text and font.getlength(f"{text}…") > width:
        text = text[:-1]
    return f"{text}…"


def write_views(
    render: RenderImages,
    path: str | os.PathLike[str],
    views: int = 8,
    size: int = 256,
    elevation: float = 15.0,
    columns: int = 4,
    field_of_view: float = 40.0,
    relative_distance: float = 1.0,
) -> None:
    """Write `views` renders around the object as a contact sheet, captioned with their azimuths."""
    cameras = turntable_cameras(views, elevation, field_of_view, relative_distance)
    images = turntable_frames(render, cameras, size)
    write_contact_sheet(images, path, columns, [f"{round(360 * v / views)}°" for v in range(views)])
