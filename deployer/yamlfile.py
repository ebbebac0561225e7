"""YAML text -> plain data that remembers the line of each key. Pure.

Stricter than YAML 1.1 where that surprises people: no duplicate keys, only text as keys, `20:00` and `2026-01-31`
stay text. What editors (YAML 1.2) and this parser (1.1) read differently, such as `no`, `010` or `1e3`, is an error,
and so is a recursive or exploding alias.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import yaml

from deployer.errors import Problem

Path = tuple[str | int, ...]
MOST_NODES = 200_000
MOST_LEVELS = 50


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
    if UNREADABLE in text:
        line = _line_at(text, text.index(UNREADABLE))
        return _unreadable(file, line, "holds bytes that are not UTF-8")
    try:
        node = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.reader.ReaderError as error:
        return _unreadable(
            file, _line_at(text, error.position), f"not valid YAML: {error.reason} (#x{error.character:x})"
        )
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        reason = ", ".join(part for part in (error.context, error.problem) if part)
        return _unreadable(file, mark.line + 1 if mark else None, f"not valid YAML: {reason}")
    except RecursionError:
        return _unreadable(file, None, "nested too deeply")
    except (yaml.YAMLError, ValueError) as error:
        return _unreadable(file, None, f"not valid YAML: {error}")
    if node is None:
        return Document(file, None)
    builder = _Builder(file)
    data = builder.build(node, ())
    return Document(file, data, builder.lines, tuple(builder.problems))


UNREADABLE = "\ufffd"
"""What stands for bytes that were no UTF-8 when the file was read."""


def _unreadable(file: str, line: int | None, message: str) -> Document:
    return Document(file, None, {}, (Problem(file, line, "", message + "."),))


def _line_at(text: str, position: int) -> int:
    return text.count("\n", 0, position) + 1


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
            return self.fault(node, path, "an alias that contains itself, or too much data.")
        if len(self.open) > MOST_LEVELS:
            return self.fault(node, path, "nested too deeply.")
        self.open.add(id(node))
        try:
            if isinstance(node, yaml.ScalarNode):
                return self.scalar(node, path)
            if node.tag not in _COLLECTIONS:
                return self.fault(node, path, f"the tag '{_short(node.tag)}' means nothing here.")
            if isinstance(node, yaml.MappingNode):
                return self.mapping(node, path)
            return [self.build(item, (*path, index)) for index, item in enumerate(node.value)]
        finally:
            self.open.discard(id(node))

    def mapping(self, node: yaml.MappingNode, path: Path) -> dict[str, Any]:
        """What `<<` brings in comes first, so that the mapping's own keys win, and their lines."""
        result: dict[str, Any] = {}
        for key_node, value_node in node.value:
            if key_node.tag == _MERGE:
                result = {**self.merged(value_node, path), **result}
        own: dict[str, int] = {}
        for key_node, value_node in node.value:
            if key_node.tag == _MERGE:
                continue
            key = key_node.value if isinstance(key_node, yaml.ScalarNode) else None
            if key is None or key_node.tag not in _TEXT_TAGS:
                self.fault(key_node, path, f"a key must be text; quote it: '{key}'." if key else "a key must be text.")
                continue
            here = (*path, key)
            if key in own:
                self.fault(key_node, here, f"given twice (first in line {own[key]}).")
                continue
            own[key] = self.lines[here] = key_node.start_mark.line + 1
            result[key] = self.build(value_node, here)
        return result

    def merged(self, node: yaml.Node, path: Path) -> dict[str, Any]:
        """The first of several mappings wins, as YAML's merge key says."""
        result: dict[str, Any] = {}
        for part in node.value if isinstance(node, yaml.SequenceNode) else [node]:
            found = self.build(part, path)
            if not isinstance(found, dict):
                self.fault(part, path, "<< takes keys and values, or a list of such.")
                continue
            result = {**found, **result}
        return result

    def scalar(self, node: yaml.ScalarNode, path: Path) -> Any:
        text: str = node.value
        if not text.isascii() and _SURROGATE.search(text):
            return self.fault(node, path, "holds half a character (a surrogate), which is no text.")
        if "\0" in text:
            return self.fault(node, path, "holds a NUL character, which PostgreSQL takes in no text.")
        if node.tag in _TEXT_TAGS or (node.tag in (_INT, _FLOAT) and ":" in text):
            if node.style is None and _EXPONENT.fullmatch(text):
                return self.ambiguous(node, path)
            return text
        same = _SAME_EVERYWHERE.get(node.tag)
        if same and not same.fullmatch(text):
            return self.ambiguous(node, path)
        try:
            return _SCALARS[node.tag](text)
        except (KeyError, ValueError, OverflowError):
            return self.fault(node, path, f"cannot read {_shortened(text)} as {_short(node.tag)}.")

    def ambiguous(self, node: yaml.ScalarNode, path: Path) -> None:
        """A reader that knows YAML 1.2 sees another value here than one that knows 1.1."""
        text, clear = node.value, _CLEARER.get(node.value.lower())
        return self.fault(
            node,
            path,
            f"'{text}' means different things to different readers of YAML: {clear or 'write the plain number'}, or quote it to make it text.",
        )

    def fault(self, node: yaml.Node, path: Path, message: str) -> None:
        self.problems.append(Problem(self.file, node.start_mark.line + 1, dotted(path), message))


_YAML = "tag:yaml.org,2002:"
_INT, _FLOAT, _BOOL, _MERGE = f"{_YAML}int", f"{_YAML}float", f"{_YAML}bool", f"{_YAML}merge"
_TEXT_TAGS = {f"{_YAML}str", f"{_YAML}timestamp", f"{_YAML}value"}
_COLLECTIONS = {f"{_YAML}map", f"{_YAML}seq"}
_SURROGATE = re.compile("[\ud800-\udfff]")
_EXPONENT = re.compile(r"[-+]?[0-9]+[eE][-+]?[0-9]+")
_SAME_EVERYWHERE = {
    _BOOL: re.compile("true|True|TRUE|false|False|FALSE"),
    _INT: re.compile("[-+]?(0|[1-9][0-9]*)|0x[0-9a-fA-F]+"),
    _FLOAT: re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)"),
}
_CLEARER = {**dict.fromkeys(("yes", "on"), "write true"), **dict.fromkeys(("no", "off"), "write false")}


def _short(tag: str) -> str:
    return tag.removeprefix(_YAML)


def _shortened(text: str) -> str:
    return repr(text) if len(text) <= 40 else repr(text[:37] + "...")


def _float(text: str) -> float:
    value = float(text.lower().replace(".inf", "inf").replace(".nan", "nan"))
    if value != value or value in (float("inf"), float("-inf")):
        raise ValueError("JSON has no such number")
    return value


_SCALARS: dict[str, Any] = {
    f"{_YAML}null": lambda text: None,
    _BOOL: lambda text: text.lower() == "true",
    _INT: lambda text: int(text, 0),
    _FLOAT: _float,
}
