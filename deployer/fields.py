"""What the two kinds of YAML files share: strict frozen models, names, schedules, and errors that name the line. Pure."""

from __future__ import annotations

import copy
import itertools
import re
import warnings
import zoneinfo
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from functools import lru_cache
from typing import Annotated, Any, TypeVar, get_args, get_origin

from croniter import CroniterBadDateError, croniter
from dateutil.rrule import rrulestr
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from deployer.errors import Problem
from deployer.yamlfile import Document, Path, guess

NAME = r"^[a-z0-9]+(-[a-z0-9]+)*$"
PREFECT_NAME = r"^[^/%&><]+$"
VARIABLE_NAME = r"^[a-z0-9_-]+$"
BLOCK_NAME = r"^[a-z0-9-]+$"
ENTRYPOINT = r"^[^:\s]+\.py:[A-Za-z_][A-Za-z0-9_.]*$"
SHARE = r"^(100|[0-9]{1,2})%$"

EXPECTED = {
    NAME: "small letters and digits, with single dashes between them",
    PREFECT_NAME: "a name without / % & > <",
    VARIABLE_NAME: "small letters, digits, dashes and underscores",
    BLOCK_NAME: "small letters, digits and dashes",
    ENTRYPOINT: "path/of/file.py:flow_function",
    SHARE: "a share from 0% to 100%, or a number",
}
"""Each pattern in words."""

MARKS = ("project:", "env:", "preview:")
RETIRED, RETIRED_WHILE_PAUSED = STATES = ("retired", "retired-while-paused")


def marks(tag: str) -> bool:
    """Does the deploy itself set and read this tag?"""
    return tag.startswith(MARKS) or tag in STATES


def _whole(value: Any) -> Any:
    """pydantic takes true for 1."""
    if isinstance(value, bool):
        raise ValueError(f"expected a whole number, got {_named(value)}")
    if isinstance(value, int) and value > MOST_WHOLE:
        raise ValueError(f"expected at most {MOST_WHOLE}, which is all that Prefect's database holds")
    return value


MOST_WHOLE = 2**31 - 1
"""PostgreSQL's INTEGER, which its limits and priorities are."""


def _tag(tag: str) -> str:
    if not tag.strip():
        raise ValueError("a tag of nothing but blanks; leave it out")
    if marks(tag):
        raise ValueError(f"'{tag}' is a tag that the deploy itself sets and reads; choose another")
    return tag


WHOLE = BeforeValidator(_whole)
Name = Annotated[str, Field(pattern=NAME, max_length=200, description="Small letters, digits, dashes.")]
PrefectName = Annotated[str, Field(pattern=PREFECT_NAME, max_length=200)]
Tag = Annotated[str, AfterValidator(_tag), Field(min_length=1)]
Json = Any


class Strict(BaseModel):
    """Unknown keys are errors, values are frozen."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


def _cron(cron: str) -> str:
    if not croniter.is_valid(cron) or _RANDOM.search(cron):
        raise ValueError(f"'{cron}' is not a cron expression; five fields are expected, e.g. '0 20 * * 1-5'")
    try:
        croniter(cron, _SOME_DAY).get_next()
    except CroniterBadDateError:
        raise ValueError(f"'{cron}' never comes; there is no such day") from None
    return cron


_RANDOM = re.compile(r"(^|[\s,])[hr](\W|$)", re.I)
"""croniter's hashed and random times, which Prefect does not take."""

_SOME_DAY = datetime(2024, 1, 1)


def _rrule(rule: str) -> str:
    if len(rule) > 6500:
        raise ValueError(f"an rrule has at most 6500 characters, this one {len(rule)}")
    if re.search(r"INTERVAL=[-+]?0*(;|\s|$)", rule, re.I):
        raise ValueError(f"'{rule[:60]}' has an INTERVAL of 0, and would never come to an end")
    if until := re.search(r"UNTIL=([0-9]{8}T[0-9]{6})Z", rule, re.I):
        raise ValueError(
            f"'{rule[:60]}': Prefect's server cannot expand a rule whose UNTIL ends in Z, and then schedules nothing at all; "
            f"write UNTIL={until[1]}, in the schedule's own time zone"
        )
    try:
        with warnings.catch_warnings(action="error"):  # dateutil only warns of a time zone that it does not know
            rrulestr(rule)
    except (Warning, ValueError, TypeError, AttributeError, KeyError, IndexError, OverflowError) as error:
        reason = f": {error}" if str(error).startswith("invalid '") else ""
        raise ValueError(
            f"'{rule[:60]}' is not a recurrence rule (RFC 5545){reason}; e.g. 'FREQ=WEEKLY;BYDAY=MO;BYHOUR=6;BYMINUTE=0;BYSECOND=0'"
        ) from None
    return rule


@lru_cache(maxsize=1)
def _timezones() -> frozenset[str]:
    return frozenset(zoneinfo.available_timezones())


def _timezone(name: str) -> str:
    if name not in _timezones():
        raise ValueError(f"'{name}' is not a time zone.{guess(name, _timezones())} Names are like 'America/Chicago'")
    return name


def _moment(text: str) -> str:
    """With dashes: Prefect takes a text of digits alone for seconds since 1970."""
    try:
        plain = re.match(r"\d{4}-\d\d-\d\d([T ]|$)", text)
        datetime.fromisoformat(text if plain else "")
    except ValueError:
        raise ValueError(f"'{text}' is not an ISO 8601 time, e.g. '2026-01-01T06:00:00+00:00'") from None
    return text


def _one_line(text: str) -> str:
    if text != " ".join(text.split()) or not text.isprintable():
        raise ValueError("a name is one line of text, without control characters or blanks at its ends")
    return text


Line = Annotated[str, Field(min_length=1), AfterValidator(_one_line)]
"""A name that people read in plans and logs."""


class Schedule(Strict):
    """When a deployment runs: exactly one of cron, interval (seconds) and rrule."""

    slug: Name | None = Field(None, description="Identity of the schedule: with it, a change keeps the schedule's id.")
    cron: Annotated[str, AfterValidator(_cron)] | None = Field(None, examples=["0 20 * * 1-5"])
    interval: float | None = Field(
        None, gt=0, le=315_360_000, description="Seconds between two runs; ten years at most."
    )
    rrule: Annotated[str, AfterValidator(_rrule)] | None = Field(
        None, examples=["FREQ=WEEKLY;BYDAY=MO;BYHOUR=6;BYMINUTE=0;BYSECOND=0"]
    )
    timezone: Annotated[str, AfterValidator(_timezone)] | None = Field(
        None, description="IANA name. UTC when left out.", examples=["America/Chicago"]
    )
    day_or: bool = Field(True, description="cron only: day of month OR day of week (true), or AND (false).")
    anchor_date: Annotated[str, AfterValidator(_moment)] | None = Field(
        None, description="interval only: ISO 8601 time that the interval counts from."
    )
    active: bool | None = Field(None, description="Default: the environment's `schedules: active|paused`.")
    parameters: dict[str, Json] = Field(default_factory=dict, description="Overrides the deployment's parameters.")

    @model_validator(mode="after")
    def _consistent(self) -> Schedule:
        given = [key for key in ("cron", "interval", "rrule") if getattr(self, key) is not None]
        if len(given) != 1:
            raise ValueError(f"needs exactly one of cron, interval, rrule; has {', '.join(given) or 'none'}")
        if self.anchor_date is not None and self.interval is None:
            raise ValueError("anchor_date goes with interval only")
        return self


M = TypeVar("M", bound=Strict)


def read(
    model: type[M],
    data: Any,
    document: Document,
    at: Path = (),
    unresolved: Iterable[Path] = (),
    stand_ins: Mapping[str, Any] = {},
) -> tuple[M | None, list[Problem]]:
    """Data -> a frozen model, and every fault of it with its line.

    With faults, the model is what can be read without the faulty parts, so that other checks find theirs in the same
    pass; `stand_ins` take the place of keys that it cannot be without. Faults at `unresolved` paths (variables that
    nobody set, where that is allowed) are passed over.
    """
    if not isinstance(data, dict):
        return None, [document.problem(at, f"expected keys and values, got {_named(data)}.")]
    open_paths = tuple(unresolved)
    faults = _faults(model, data)
    problems = [
        document.problem((*at, *path), message)
        for path, message in faults
        if not any(path[: len(p)] == p for p in open_paths)
    ]
    while faults:
        smaller = _without(data, [path for path, _ in faults], stand_ins)
        if smaller == data:
            return None, problems
        data, faults = smaller, _faults(model, smaller)
    return model.model_validate(data), problems


def _faults(model: type[BaseModel], data: dict[str, Any]) -> list[tuple[Path, str]]:
    try:
        model.model_validate(data)
    except ValidationError as error:
        return _one_a_place([(_path_of(e, data), e) for e in error.errors(include_url=False)], model)
    return []


def _without(data: dict[str, Any], paths: list[Path], stand_ins: Mapping[str, Any]) -> dict[str, Any]:
    """A copy that lacks what `paths` lead to. Items of a list go with their list: the others would get new places."""
    result = copy.deepcopy(data)
    for path in paths:
        key = path[0] if path else ""
        if len(path) <= 1 and key in stand_ins:
            result[str(key)] = stand_ins[str(key)]
            continue
        _cut(result, path)
    return result


def _cut(here: Any, path: Path) -> None:
    """Take out the end of the path; where that is missing, what lacks it."""
    places = [(here, path[0])] if path else []
    for part, following in itertools.pairwise(path):
        try:
            here = here[part]
        except (KeyError, IndexError, TypeError):
            break
        places.append((here, following))
    while places:
        around, key = places.pop()
        if isinstance(around, dict) and key in around:
            del around[key]
            return


def _path_of(error: Mapping[str, Any], data: Any) -> Path:
    """pydantic's location without what is no key of ours (the names of union members)."""
    path: list[str | int] = []
    for part in error["loc"]:
        if (isinstance(data, dict) and part in data) or (
            isinstance(data, list) and isinstance(part, int) and part < len(data)
        ):
            data = data[part]
        elif error["type"] == "missing" and part == error["loc"][-1]:
            pass
        else:
            continue
        path.append(part)
    return tuple(path)


def _one_a_place(found: Sequence[tuple[Path, Mapping[str, Any]]], model: type[BaseModel]) -> list[tuple[Path, str]]:
    """A value that may be of several kinds has a fault for each of them. Told is that of the kind that it looks like."""
    told: list[tuple[Path, str]] = []
    for path in dict.fromkeys(path for path, _ in found):
        here = [e for p, e in found if p == path]
        fits = [e for e in here if e["type"] not in SHAPES]
        if fits or any(len(p) > len(path) and p[: len(path)] == path for p, _ in found):
            told += [(path, _message(e, model, path)) for e in fits]
        else:
            kinds = " or ".join(dict.fromkeys(SHAPES[e["type"]] for e in here))
            told.append((path, f"expected {kinds}, got {_named(here[0].get('input'))}.{_hint(here)}"))
    return told


SHAPES = {
    "string_type": "text",
    "int_type": "a whole number",
    "int_parsing": "a whole number",
    "int_parsing_size": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "float_parsing": "a number",
    "finite_number": "a number",
    "bool_type": "true or false",
    "bool_parsing": "true or false",
    "list_type": "a list",
    "dict_type": "keys and values",
    "model_type": "keys and values",
}
"""pydantic's words for a value of the wrong shape -> ours."""


def _hint(errors: Sequence[Mapping[str, Any]]) -> str:
    value = errors[0].get("input")
    wants_text = any(e["type"] == "string_type" for e in errors)
    return " Quote it to make it text." if wants_text and isinstance(value, int | float) else ""


def _message(error: Mapping[str, Any], model: type[BaseModel], path: Path) -> str:
    kind, value, context = error["type"], error.get("input"), error.get("ctx", {})
    if kind == "extra_forbidden":
        known = _keys_at(model, path[:-1])
        return f"unknown key '{path[-1]}'.{guess(str(path[-1]), known)} Known here: {', '.join(known)}."
    if kind == "missing":
        return f"missing; '{path[-1]}' is needed here."
    if kind == "value_error":
        return f"{context['error']}."
    if kind == "string_pattern_mismatch":
        return f"expected {EXPECTED.get(context['pattern'], context['pattern'])}, got {_named(value)}."
    if kind == "literal_error":
        expected = context["expected"]
        return f"expected {expected}, got {_named(value)}.{guess(str(value), re.findall(r'[A-Za-z_-]+', expected))}"
    return f"{error['msg'].replace('Input should', 'must', 1)}, got {_named(value)}."


def _named(value: Any) -> str:
    """A value as the file's author wrote it, and not all of a long one."""
    if value is None:
        return "nothing"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, dict):
        return "keys and values"
    if isinstance(value, list):
        return "a list"
    text = str(value) if len(str(value)) <= 60 else f"{str(value)[:57]}..."
    return f"'{text}'" if isinstance(value, str) else text


def _keys_at(model: type[BaseModel], path: Path) -> list[str]:
    """The known keys of the model that `path` leads to."""
    here: Any = model
    for part in path:
        found = _model_in(here)
        named = found.model_fields.get(str(part)) if found else None
        here = named.annotation if named else _element(here)
    found = _model_in(here)
    return list(found.model_fields) if found else []


def _model_in(annotation: Any) -> type[BaseModel] | None:
    """The model that an annotation such as `Annotated[int, ...] | Limit | None` allows at this very place."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    if _element(annotation) is not None:
        return None
    return next((found for arg in get_args(annotation) if (found := _model_in(arg))), None)


def _element(annotation: Any) -> Any:
    """What a list or a mapping holds; None for what is neither."""
    if get_origin(annotation) in (list, dict):
        return get_args(annotation)[-1]
    return next((found for arg in get_args(annotation) if (found := _element(arg)) is not None), None)


def unprintable(items: Any, key: str, document: Document, at: Path) -> list[Problem]:
    """Items of a list whose name would break a plan's lines."""
    names = [item.get(key) if isinstance(item, dict) else None for item in (items if isinstance(items, list) else [])]
    return [
        document.problem((*at, index, key), "a name is one line of text, without control characters.")
        for index, name in enumerate(names)
        if isinstance(name, str) and not name.isprintable()
    ]


def twice(items: Any, key: str, document: Document, at: Path) -> list[Problem]:
    """Items of a list that share the value of a key which tells them apart."""
    first: dict[str, Path] = {}
    problems = []
    for index, item in enumerate(items if isinstance(items, list) else []):
        value = item.get(key) if isinstance(item, dict) else None
        if not isinstance(value, str):
            continue
        here = (*at, index, key)
        if value in first:
            line = document.line(first[value])
            problems.append(document.problem(here, f"'{value}' is given twice (first in line {line})."))
        first.setdefault(value, here)
    return problems


REFERENCE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)(?::-([^}]*))?\}")
"""`${NAME}` or `${NAME:-default}`: a variable of the process environment."""


def value_of(reference: str, variables: Mapping[str, str]) -> str:
    """What a text that is one reference stands for, without its default; nothing for any other text."""
    match = REFERENCE.fullmatch(reference)
    return variables.get(match[1], "") if match else ""


SECRET_KEY = re.compile(r"(^|[_-])(password|passwd|secret|token|api[_-]?key|private[_-]?key|access[_-]?key)s?$", re.I)
SECRET_VALUE = re.compile(
    r"\b(gh[pousr]_\w{20,}|github_pat_\w{20,}|pn[ub]_\w{20,}|AKIA[0-9A-Z]{16}|xox[abprs]-[\w-]{10,}|sk-[\w-]{20,})|-----BEGIN "
    r"|://[^/\s:@{]*:[^/\s:@{]+@"
)
INSTEAD = "Put it into the environment file's `secrets` as ${VARIABLE} and read the Secret block inside the flow."


def secret_literals(value: Any, document: Document, at: Path) -> list[Problem]:
    """What looks like a secret where everybody can read it: in a file, and then in Prefect."""
    if isinstance(value, dict):
        return [p for key, inner in value.items() for p in secret_literals(inner, document, (*at, key))]
    if isinstance(value, list):
        return [p for i, inner in enumerate(value) for p in secret_literals(inner, document, (*at, i))]
    if not isinstance(value, str) or "{{" in value:
        return []
    key = next((part for part in reversed(at) if isinstance(part, str)), "")
    written = REFERENCE.sub(lambda m: m[2] or "", value)
    if SECRET_VALUE.search(written) or (SECRET_KEY.search(key) and written and " " not in written):
        return [document.problem(at, f"looks like a secret. {INSTEAD}")]
    if SECRET_KEY.search(key) and written != value:
        return [document.problem(at, f"would show a variable's value to everybody in Prefect. {INSTEAD}")]
    return []
