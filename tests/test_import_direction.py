"""No import runs upwards: scenes, priors and rewards lie at the bottom, the command at the top."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[1] / "src" / "rewardsds"

# What the modules of a package may import from the rest of rewardsds. A name stands for all below it.
EVERYONE = {"errors", "prompts"}
ALLOWED: dict[str, set[str]] = {
    "errors": set(),
    "prompts": set(),
    "arguments": set(),
    "hardware": set(),
    "memory": set(),
    "foreign": {"catalogue"},
    "catalogue": set(),
    "hub": {"catalogue"},
    "pretrained": {"catalogue", "hub", "foreign"},
    "scenes": set(),
    "priors": {"catalogue", "hub", "pretrained", "foreign", "memory"},
    "rewards": {"catalogue", "hub", "pretrained", "foreign", "memory"},
    "distillation": {"memory", "scenes.base", "priors.base", "rewards.base", "rewards.views"},
    # a step's record, the scene's contract, and how files are written
    "runs": {
        "hardware",
        "memory",
        "distillation",
        "rewards.base",
        "scenes.base",
        "scenes.cameras",
        "scenes.export",
        "scenes.files",
    },
    "toybox": {"scenes.cameras", "priors", "rewards", "hardware", "pretrained"},
    "tasks": {
        "scenes",
        "priors",
        "rewards",
        "distillation",
        "runs",
        "memory",
        "toybox.captions",
        "toybox.specification",
    },
    "models": {
        "catalogue",
        "hub",
        "pretrained",
        "foreign",
        "memory",
        "hardware",
        "priors",
        "rewards",
        "scenes",
    },
    "evaluation": {
        "catalogue",
        "hardware",
        "memory",
        "tasks",
        "runs",
        "toybox",
        "scenes",
        "priors",
        "rewards",
        "distillation",
    },
    "studio": {"tasks", "runs", "toybox", "scenes", "priors", "rewards", "distillation"},
    "cli": {
        "arguments",
        "catalogue",
        "tasks",
        "runs",
        "toybox",
        "models",
        "evaluation",
        "scenes.settings",
        "scenes.mesh.settings",
    },
    "__main__": {"cli"},
    # the names of `from rewardsds import …`
    "__init__": {"distillation", "priors", "rewards"},
}


def modules() -> list[str]:
    names = [path.relative_to(SOURCE).with_suffix("").as_posix() for path in SOURCE.rglob("*.py")]
    return sorted(name.replace("/", ".") for name in names)


def imports_of(source: str) -> set[str]:
    """Modules of rewardsds that a source imports, at its top or inside functions, without `rewardsds.`."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            found.add(node.module or "")
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    inside = {name.removeprefix("rewardsds.") for name in found if name.startswith("rewardsds.")}
    # of `from a.b import c` both a.b and a.b.c were added; only modules that exist count
    return {name for name in inside if (SOURCE / name.replace(".", "/")).is_dir() or is_module(name)}


def is_module(name: str) -> bool:
    return (SOURCE / name.replace(".", "/")).with_suffix(".py").is_file()


def is_within(name: str, package: str) -> bool:
    return name == package or name.startswith(package + ".")


@pytest.mark.parametrize("module", modules())
def test_no_import_runs_upwards(module: str) -> None:
    package = module.split(".")[0]
    assert package in ALLOWED, f"say in this test what {package} may import"
    allowed = ALLOWED[package] | EVERYONE | {package}
    path = (SOURCE / module.replace(".", "/")).with_suffix(".py")
    imported = imports_of(path.read_text(encoding="utf-8"))
    # `from a import b` also names a itself: that counts only if nothing below it was meant
    wrong = {
        name
        for name in imported
        if not any(is_within(name, place) for place in allowed)
        and not any(other != name and is_within(other, name) for other in imported)
    }
    assert not wrong, f"{module} must not import {sorted(wrong)}"


def test_the_reader_of_imports_sees_them_all() -> None:
    source = "import rewardsds.runs.loop\ndef f():\n    from rewardsds.tasks import parts\n    import torch\n"
    assert imports_of(source) == {"runs.loop", "tasks", "tasks.parts"}
