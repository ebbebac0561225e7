"""YAML text -> plain data that remembers the line of each key. Pure.

Stricter than YAML 1.1 where that surprises people: no duplicate keys, only text as keys, `20:00` and `2026-01-31`
stay text, a recursive or exploding alias is an error.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import yaml

from deployer.errors import Problem

Path = tuple[str | int, ...]
MOST_NODES = 200_000


@dataclass(frozen=True)
class Document:
    """The data of one file. `lines` maps the path of each key or item to its line, counted from 1."""

    file: str
    data: Any
    lines: dict[Path, int] = field(default_factory=dict)
    problems: tuple[Problem, ...] = ()

    def line(self, path: Path) -> int | None:
        """The line of `path`, or of the nearest thing around it."""
        while path and path not in self.lines:
            path = path[:-1]
        return self.lines.get(path)

    def problem(self, path: Path, message: str) -> Problem:
        return Problem(self.file, self.line(path), dotted(path), message)


def dotted(path: Iterable[str | int]) -> str:
    """`("schedules", 0, "cron")` -> `schedules[0].cron`."""
    text = ""
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else part
    return text


def guess(word: str, known: Iterable[str]) -> str:
    """` Did you mean 'x'?`, or nothing."""
    close = difflib.get_close_matches(word, list(known), n=1, cutoff=0.6)
    return f" Did you mean '{close[0]}'?" if close else ""


def parse(text: str, file: str) -> Document:
    """Every fault is a problem of the document; `data` is None when the text is no YAML at all."""
    try:
        node = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None) or getattr(error, "context_mark", None)
        reason = getattr(error, "problem", None) or str(error).splitlines()[0]
        return Document(
            file, None, {}, (Problem(file, mark.line + 1 if mark else None, "", f"not valid YAML: {reason}"),)
        )
    except (ValueError, RecursionError) as error:
        return Document(file, None, {}, (Problem(file, None, "", f"not valid YAML: {error}"),))
    if node is None:
        return Document(file, None)
    builder = _Builder(file)
    try:
        data = builder.build(node, ())
    except RecursionError:
        data, builder.problems = None, [Problem(file, None, "", "nested too deeply")]
    return Document(file, data, builder.lines, tuple(builder.problems))


class _Builder:
    """Walks the node graph once; yaml's own constructor would lose the lines."""

    def __init__(self, file: str) -> None:
        self.file = file
        self.lines: dict[Path, int] = {}
        self.problems: list[Problem] = []
        self.open: set[int] = set()
        self.nodes = 0

    def build(self, node: yaml.Node, path: Path) -> Any:
        self.lines.setdefault(path, node.start_mark.line + 1)
        self.nodes += 1
        if id(node) in self.open or self.nodes > MOST_NODES:
            return self.fault(node, path, "an alias that contains itself, or too much data")
        self.open.add(id(node))
        try:
            if isinstance(node, yaml.MappingNode):
                return self.mapping(node, path)
            if isinstance(node, yaml.SequenceNode):
                return [self.build(item, (*path, index)) for index, item in enumerate(node.value)]
            return self.scalar(node, path)
        finally:
            self.open.discard(id(node))

    def mapping(self, node: yaml.MappingNode, path: Path) -> dict[str, Any]:
        result: dict[str, Any] = {}
        for key_node, value_node in node.value:
            if key_node.tag == "tag:yaml.org,2002:merge":
                merged = self.build(value_node, path)
                parts = merged if isinstance(merged, list) else [merged]
                for part in parts:
                    result = {**part, **result} if isinstance(part, dict) else result
                continue
            key = key_node.value if isinstance(key_node, yaml.ScalarNode) else None
            if key is None or key_node.tag not in _TEXT_TAGS:
                self.fault(key_node, path, f"a key must be text; quote it: '{key}'" if key else "a key must be text")
                continue
            here = (*path, key)
            if here in self.lines and key in result:
                self.fault(key_node, here, f"given twice (first in line {self.lines[here]})")
                continue
            self.lines[here] = key_node.start_mark.line + 1
            result[key] = self.build(value_node, here)
        return result

    def scalar(self, node: yaml.Node, path: Path) -> Any:
        text: str = node.value
        if node.tag in _TEXT_TAGS or (node.tag == _INT and ":" in text) or (node.tag == _FLOAT and ":" in text):
            return text
        try:
            return _SCALARS[node.tag](text)
        except (KeyError, ValueError, OverflowError):
            return self.fault(node, path, f"cannot read {text!r} as {node.tag.rsplit(':', 1)[-1]}")

    def fault(self, node: yaml.Node, path: Path, message: str) -> None:
        self.problems.append(Problem(self.file, node.start_mark.line + 1, dotted(path), message))


_INT, _FLOAT = "tag:yaml.org,2002:int", "tag:yaml.org,2002:float"
_TEXT_TAGS = {"tag:yaml.org,2002:str", "tag:yaml.org,2002:timestamp", "tag:yaml.org,2002:value"}


def _integer(text: str) -> int:
    plain = text.replace("_", "")
    digits = plain.lstrip("+-")
    old_octal = len(digits) > 1 and digits[0] == "0" and digits.isdigit()
    return int(plain, 8) if old_octal else int(plain, 0)


def _float(text: str) -> float:
    plain = text.replace("_", "").lower()
    value = float(plain.replace(".inf", "inf").replace(".nan", "nan"))
    if value != value or value in (float("inf"), float("-inf")):
        raise ValueError("JSON has no such number")
    return value


_SCALARS: dict[str, Any] = {
    "tag:yaml.org,2002:null": lambda text: None,
    "tag:yaml.org,2002:bool": lambda text: text.lower() in ("yes", "true", "on"),
    _INT: _integer,
    _FLOAT: _float,
}
