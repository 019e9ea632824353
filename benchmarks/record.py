"""How a benchmark's figures are written down: with the date and the machine that they were measured on."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import date
from pathlib import Path
from typing import Any

from rewardsds.hardware import hardware
from rewardsds.scenes.files import atomic_path


def write_record(path: Path, figures: Mapping[str, Any], device: str = "cpu") -> None:
    """A JSON file, in a folder that need not exist yet."""
    whole = {"date": date.today().isoformat(), "hardware": hardware(device), **figures}
    with atomic_path(path) as temporary:
        temporary.write_text(json.dumps(whole, indent=1) + "\n", encoding="utf-8")
