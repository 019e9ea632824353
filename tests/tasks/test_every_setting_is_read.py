"""No setting without effect: each one is read somewhere outside the classes that declare settings."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest
from pydantic import BaseModel

import rewardsds
from rewardsds.tasks.settings import EditSettings, TextTo3DSettings, TextToImageSettings
from rewardsds.toybox.train.settings import StageSettings, TrainSettings

SOURCE = Path(rewardsds.__file__).parent


def declared(kind: type[BaseModel]) -> set[str]:
    names = set()
    for name, field in kind.model_fields.items():
        group = field.annotation
        if isinstance(group, type) and issubclass(group, BaseModel):
            names |= declared(group)
        names.add(name)
    return names


def read(tree: ast.AST) -> set[str]:
    """Attributes that are read of anything, except where a rule only checks them (validators)."""
    names: set[str] = set()

    class Reads(ast.NodeVisitor):
        def visit_FunctionDef(self, node: ast.FunctionDef) -> None:
            if not node.name.startswith("_check"):
                self.generic_visit(node)

        def visit_Attribute(self, node: ast.Attribute) -> None:
            if isinstance(node.ctx, ast.Load):
                names.add(node.attr)
            self.generic_visit(node)

    Reads().visit(tree)
    return names


@pytest.mark.parametrize(
    "kind", [TextToImageSettings, TextTo3DSettings, EditSettings, TrainSettings, StageSettings]
)
def test_every_setting_is_read(kind: type[BaseModel]) -> None:
    found = set().union(*(read(ast.parse(path.read_text("utf-8"))) for path in SOURCE.rglob("*.py")))
    assert declared(kind) - found == set()


def test_the_check_can_fail() -> None:
    class Idle(BaseModel):
        nobody_reads_this_one: int = 0

    found = set().union(*(read(ast.parse(path.read_text("utf-8"))) for path in SOURCE.rglob("*.py")))
    assert declared(Idle) - found == {"nobody_reads_this_one"}
