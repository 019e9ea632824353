"""Cameras from a file: NeRF's and nerfstudio's transforms.json, and nerfstudio's camera_path.json."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from rewardsds.scenes.cameras import Cameras


def read_trajectory(path: Path) -> Cameras:
    """The cameras (T,) of a file, in its order; poses are camera-to-world with OpenGL axes, as everywhere here.

    Of transforms.json: `frames` with `transform_matrix`, and `camera_angle_x` or `camera_angle_y` (radians), or `fl_x`
    and `w`, or `fl_y` and `h`, of each frame or of all. Of camera_path.json: `camera_path` with `camera_to_world` and
    `fov` (degrees, vertical). Angles across a picture become vertical ones by `w` and `h`; without them it is square.
    Raises ValueError, in one line, where the file holds no cameras.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ValueError(f"no file of cameras {path}") from None
    except (OSError, ValueError, RecursionError) as error:
        reason = " ".join(str(error).split())[:160]
        raise ValueError(f"the cameras in {path} cannot be read: {reason}") from None
    frames = content.get("frames", content.get("camera_path")) if isinstance(content, dict) else None
    if not isinstance(frames, list) or not frames:
        raise ValueError(
            f"{path} holds no cameras: expected `frames` (transforms.json) or `camera_path` (nerfstudio's)"
        )
    poses, angles = [], []
    for index, frame in enumerate(frames):
        try:
            poses.append(_pose(frame))
            angles.append(_field_of_view(frame, content))
        except (KeyError, TypeError, ValueError, ArithmeticError, RuntimeError) as error:
            reason = f"{error.args[0]!r} is missing" if isinstance(error, KeyError) else str(error)
            reason = " ".join(reason.split())[:160]
            raise ValueError(f"camera {index} in {path} cannot be used: {reason}") from None
    return Cameras(torch.stack(poses), torch.tensor(angles))


def _pose(frame: Mapping[str, Any]) -> torch.Tensor:
    values = frame["transform_matrix"] if "transform_matrix" in frame else frame["camera_to_world"]
    numbers = torch.tensor(values, dtype=torch.float32).flatten()
    if len(numbers) == 12:  # the last row is left out
        numbers = torch.cat([numbers, torch.tensor([0.0, 0.0, 0.0, 1.0])])
    if len(numbers) != 16 or not numbers.isfinite().all():
        raise ValueError(f"its pose is no finite 4 × 4 matrix, it has {len(numbers)} numbers")
    pose = numbers.reshape(4, 4)
    rotation = pose[:3, :3]
    if not torch.allclose(rotation @ rotation.T, torch.eye(3), atol=1e-3) or torch.linalg.det(rotation) < 0:
        raise ValueError("its pose is no rotation and translation")
    return pose


def _field_of_view(frame: Mapping[str, Any], common: Mapping[str, Any]) -> float:
    """Vertical field of view in radians: what a frame says of its own lens counts before what is said of all."""
    values = {**common, **frame}
    angle = _angle(frame, values)
    if angle is None:
        angle = _angle(common, values)
    if angle is None:
        raise ValueError(
            "its field of view is missing: expected camera_angle_x or camera_angle_y, fl_x and w, fl_y and h, or fov"
        )
    if not 0 < angle < math.pi:
        raise ValueError(f"its field of view is {math.degrees(angle):.1f} degrees")
    return angle


def _angle(lens: Mapping[str, Any], values: Mapping[str, Any]) -> float | None:
    """What `lens` says of the angle, None where that is nothing; the size of the picture is one of `values`."""
    if "fl_y" in lens and "h" in values:
        return 2 * math.atan(0.5 * _positive(values, "h") / _positive(lens, "fl_y"))
    if "camera_angle_y" in lens:
        return float(lens["camera_angle_y"])
    if "fov" in lens:
        return math.radians(float(lens["fov"]))
    if "fl_x" in lens and ("h" in values or "w" in values):  # pixels are square
        return 2 * math.atan(0.5 * _positive(values, "h" if "h" in values else "w") / _positive(lens, "fl_x"))
    if "camera_angle_x" not in lens:
        return None
    across = float(lens["camera_angle_x"])
    if not ("w" in values and "h" in values and 0 < across < math.pi):
        return across
    return 2 * math.atan(math.tan(0.5 * across) * _positive(values, "h") / _positive(values, "w"))


def _positive(values: Mapping[str, Any], name: str) -> float:
    """A length in pixels."""
    if not 0 < float(values[name]) < math.inf:
        what = "focal length" if name.startswith("fl_") else "size"
        raise ValueError(f"its {name} is {values[name]}: expected a {what} in pixels, above 0")
    return float(values[name])
