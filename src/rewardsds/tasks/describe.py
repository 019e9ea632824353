"""All settings of a task as YAML with their meaning in comments: to be read, changed, and given back as --config."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Mapping
from typing import Any

import yaml
from pydantic import BaseModel

from rewardsds.tasks.settings import DistillationSettings

WIDTH = 100
WORDS = {"integer": "whole number", "boolean": "true or false", "string": "text"}


def describe(task: type[DistillationSettings], values: Mapping[str, Any] | None = None) -> str:
    """The settings of a task in the order of its class, with `values` in place of defaults, as a YAML file.

    What has no default and no value stands as a comment, so that the file can be read back.
    """
    head = f"# Settings of `rewardsds {task.task}`. {_first_line(task)}"
    lines = [head, "", f"task: {task.task}", *_lines(task, values or {}, "")]
    return "\n".join(lines) + "\n"


def _lines(kind: type[BaseModel], values: Mapping[str, Any], indent: str) -> Iterator[str]:
    properties = kind.model_json_schema()["properties"]
    definitions = kind.model_json_schema().get("$defs", {})
    for name, field in kind.model_fields.items():
        yield ""
        group = field.annotation
        is_group = isinstance(group, type) and issubclass(group, BaseModel)
        meaning = field.description or ""
        if not is_group:
            meaning = f"{meaning} [{_allowed(properties[name], definitions)}]"
        prefix = f"{indent}# "
        yield from textwrap.wrap(meaning, WIDTH, initial_indent=prefix, subsequent_indent=prefix)
        if isinstance(group, type) and issubclass(group, BaseModel):
            yield f"{indent}{name}:"
            yield from _lines(group, values.get(name, {}), indent + "  ")
        elif field.is_required() and name not in values:
            yield f"{indent}# {name}: (needed)"
        else:
            value = values[name] if name in values else field.get_default(call_default_factory=True)
            text = yaml.safe_dump(_plain(value), allow_unicode=True, default_flow_style=True, width=10_000)
            yield f"{indent}{name}: {text.splitlines()[0]}"


def _first_line(kind: type) -> str:
    return (kind.__doc__ or "").strip().splitlines()[0]


def _plain(value: Any) -> Any:
    if isinstance(value, tuple):
        return list(value)
    return value if isinstance(value, (str, int, float, list, dict, type(None))) else str(value)


def _allowed(schema: Mapping[str, Any], definitions: Mapping[str, Any]) -> str:
    """What a value may be, in words, from its JSON schema."""
    if "$ref" in schema:
        schema = definitions[schema["$ref"].rsplit("/", 1)[-1]]
    if "anyOf" in schema:
        return " or ".join(_allowed(part, definitions) for part in schema["anyOf"])
    if "const" in schema:
        return str(schema["const"])
    if "enum" in schema:
        return ", ".join(map(str, schema["enum"]))
    kind: str = schema.get("type", "any")
    if kind == "null":
        return "null"
    if kind == "array":
        parts = schema.get("prefixItems")
        if parts:
            return f"{len(parts)} times {_allowed(parts[0], definitions)}"
        return f"list of {_allowed(schema.get('items', {}), definitions)}"
    word = WORDS.get(kind, kind)
    bounds = [
        f"{sign} {schema[key]:g}"
        for key, sign in (
            ("minimum", "≥"),
            ("exclusiveMinimum", ">"),
            ("maximum", "≤"),
            ("exclusiveMaximum", "<"),
        )
        if key in schema
    ]
    return f"{word} {', '.join(bounds)}" if bounds else word
