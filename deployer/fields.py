"""What the two kinds of YAML files share: strict frozen models, names, schedules, and errors that name the line. Pure."""

from __future__ import annotations

import re
import zoneinfo
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from functools import lru_cache
from typing import Annotated, Any, TypeVar

from croniter import croniter
from dateutil.rrule import rrulestr
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from deployer.errors import Problem
from deployer.yamlfile import Document, Path, guess

Name = Annotated[
    str, Field(pattern=r"^[a-z0-9]+(-[a-z0-9]+)*$", max_length=200, description="Small letters, digits, dashes.")
]
PrefectName = Annotated[str, Field(pattern=r"^[^/%&><]+$", max_length=200)]
Json = Any


class Strict(BaseModel):
    """Unknown keys are errors, values are frozen."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Schedule(Strict):
    """When a deployment runs: exactly one of cron, interval (seconds) and rrule."""

    slug: Name | None = Field(None, description="Identity of the schedule: with it, a change keeps the schedule's id.")
    cron: str | None = Field(None, examples=["0 20 * * 1-5"])
    interval: float | None = Field(None, gt=0, description="Seconds between two runs.")
    rrule: str | None = Field(None, examples=["FREQ=WEEKLY;BYDAY=MO;BYHOUR=6;BYMINUTE=0;BYSECOND=0"])
    timezone: str | None = Field(None, description="IANA name. UTC when left out.", examples=["America/Chicago"])
    day_or: bool = Field(True, description="cron only: day of month OR day of week (true), or AND (false).")
    anchor_date: str | None = Field(None, description="interval only: ISO 8601 time that the interval counts from.")
    active: bool | None = Field(None, description="Default: the environment's `schedules: active|paused`.")
    parameters: dict[str, Json] = Field(default_factory=dict, description="Overrides the deployment's parameters.")

    @model_validator(mode="after")
    def _consistent(self) -> Schedule:
        given = [key for key in ("cron", "interval", "rrule") if getattr(self, key) is not None]
        if len(given) != 1:
            raise ValueError(f"needs exactly one of cron, interval, rrule; has {', '.join(given) or 'none'}")
        if self.anchor_date is not None and self.interval is None:
            raise ValueError("anchor_date goes with interval only")
        _check_cron(self.cron)
        _check_rrule(self.rrule)
        _check_timezone(self.timezone)
        _check_anchor(self.anchor_date)
        return self


def _check_cron(cron: str | None) -> None:
    if cron is None:
        return
    if not croniter.is_valid(cron) or any(word.lower() in ("r", "h") for word in cron.split()):
        raise ValueError(f"'{cron}' is not a cron expression; five fields are expected, e.g. '0 20 * * 1-5'")


def _check_rrule(rule: str | None) -> None:
    if rule is None:
        return
    if len(rule) > 6500:
        raise ValueError(f"an rrule has at most 6500 characters, this one {len(rule)}")
    try:
        rrulestr(rule)
    except (ValueError, TypeError, AttributeError, KeyError, IndexError, OverflowError) as error:
        raise ValueError(f"'{rule[:60]}' is not a recurrence rule (RFC 5545): {error}") from None


@lru_cache(maxsize=1)
def _timezones() -> frozenset[str]:
    return frozenset(zoneinfo.available_timezones())


def _check_timezone(name: str | None) -> None:
    if name is not None and name not in _timezones():
        raise ValueError(f"'{name}' is not a time zone.{guess(name, _timezones())} Names are like 'America/Chicago'")


def _check_anchor(text: str | None) -> None:
    if text is None:
        return
    try:
        datetime.fromisoformat(text)
    except ValueError:
        raise ValueError(f"anchor_date '{text}' is not an ISO 8601 time, e.g. '2026-01-01T06:00:00+00:00'") from None


M = TypeVar("M", bound=Strict)


def read(
    model: type[M], data: Any, document: Document, at: Path = (), unresolved: Iterable[Path] = ()
) -> tuple[M | None, list[Problem]]:
    """Data -> a frozen model, or every fault of it with its line.

    Faults at `unresolved` paths (variables that nobody set, where that is allowed) are passed over.
    """
    if not isinstance(data, dict):
        return None, [document.problem(at, f"expected keys and values, got {_named(data)}")]
    try:
        return model.model_validate(data), []
    except ValidationError as error:
        open_paths = tuple(unresolved)
        found = [(_path_of(e, data), e) for e in error.errors()]
        problems = [
            document.problem((*at, *path), _message(e, model, path))
            for path, e in found
            if not any(path[: len(p)] == p for p in open_paths)
        ]
        return None, problems


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


def _message(error: Mapping[str, Any], model: type[BaseModel], path: Path) -> str:
    kind, value = error["type"], error.get("input")
    if kind == "extra_forbidden":
        known = _keys_at(model, path[:-1])
        return f"unknown key '{path[-1]}'.{guess(str(path[-1]), known)} Known here: {', '.join(known)}."
    if kind == "missing":
        return f"missing; '{path[-1]}' is needed here."
    if kind == "value_error":
        return str(error["ctx"]["error"]) + "."
    if kind == "string_pattern_mismatch":
        return f"'{value}' does not match {error['ctx']['pattern']}."
    if kind == "literal_error":
        expected = error["ctx"]["expected"]
        return f"expected {expected}, got {value!r}.{guess(str(value), re.findall(r'[a-z_-]+', expected))}"
    return f"{error['msg'][0].lower()}{error['msg'][1:]}, got {_named(value)}."


def _named(value: Any) -> str:
    if value is None:
        return "nothing"
    if isinstance(value, dict):
        return "keys and values"
    if isinstance(value, list):
        return "a list"
    return f"{value!r}"


def _keys_at(model: type[BaseModel], path: Path) -> list[str]:
    """The known keys of the model that `path` leads to."""
    here: Any = model
    for part in path:
        if isinstance(here, type) and issubclass(here, BaseModel):
            named = here.model_fields.get(str(part))
            here = _model_in(named.annotation) if named else None
    return list(here.model_fields) if isinstance(here, type) and issubclass(here, BaseModel) else []


def _model_in(annotation: Any) -> Any:
    """The first model named in an annotation such as `dict[str, WorkPool] | None`."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    inner: Callable[[Any], tuple[Any, ...]] = lambda a: getattr(a, "__args__", ())  # noqa: E731
    return next((found for arg in inner(annotation) if (found := _model_in(arg))), None)


SECRET_KEY = re.compile(r"(^|[_-])(password|passwd|secret|token|api[_-]?key|private[_-]?key|access[_-]?key)s?$", re.I)
SECRET_VALUE = re.compile(
    r"^(gh[pousr]_\w{20,}|github_pat_\w{20,}|pn[ub]_\w{20,}|AKIA[0-9A-Z]{16}|xox[abprs]-[\w-]{10,}|sk-[\w-]{20,}|-----BEGIN )"
    r"|://[^/\s:@{]+:[^/\s:@{]+@"
)


def secret_literals(value: Any, document: Document, at: Path) -> list[Problem]:
    """Strings that look like a secret, where a file must not hold one."""
    if isinstance(value, dict):
        return [p for key, inner in value.items() for p in secret_literals(inner, document, (*at, key))]
    if isinstance(value, list):
        return [p for i, inner in enumerate(value) for p in secret_literals(inner, document, (*at, i))]
    if not isinstance(value, str) or not value or "${" in value or "{{" in value:
        return []
    by_key = bool(at) and isinstance(at[-1], str) and SECRET_KEY.search(at[-1]) and " " not in value
    if not by_key and not SECRET_VALUE.search(value):
        return []
    return [
        document.problem(
            at,
            "looks like a secret. Put it into the environment file's `secrets` as ${VARIABLE} and read the Secret block.",
        )
    ]
