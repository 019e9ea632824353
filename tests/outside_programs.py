"""Programs of other people that tests run on our files: node packages, and a browser.

Where one is missing its tests are skipped, and say why; with REWARDSDS_CLIENTS=required they fail instead.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

CLIENTS = Path(__file__).parent / "clients"


def missing(reason: str) -> None:
    if os.environ.get("REWARDSDS_CLIENTS") == "required":
        pytest.fail(f"{reason} (REWARDSDS_CLIENTS=required)")
    pytest.skip(reason)


def gltf_report(path: Path) -> dict[str, Any]:
    """What the Khronos validator says of a file."""
    if shutil.which("node") is None or not (CLIENTS / "node_modules" / "gltf-validator").is_dir():
        missing("needs node, and gltf-validator: npm ci --prefix tests/clients")
    done = subprocess.run(
        ["node", CLIENTS / "validate_gltf.js", path], capture_output=True, text=True, check=True, timeout=120
    )
    return json.loads(done.stdout)


def browser(arguments: list[str], folder: Path) -> str:
    """Runs headless Chromium without any network, with WebGL in software; returns what it prints."""
    program = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if program is None:
        missing("needs Chromium")
    assert program is not None
    done = subprocess.run(
        [
            program, "--headless", "--no-sandbox", "--use-gl=angle", "--use-angle=swiftshader",
            "--enable-unsafe-swiftshader", "--hide-scrollbars", "--host-resolver-rules=MAP * ~NOTFOUND",
            f"--user-data-dir={folder / 'profile'}", "--virtual-time-budget=10000", *arguments,
        ],
        capture_output=True, text=True, check=True, timeout=120,
    )  # fmt: skip
    return done.stdout
