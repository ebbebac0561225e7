"""Automations: triggers, actions, and the deployments that they belong to or start.

Names are not unique, and a deployment that is deleted leaves its automations behind.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated, Literal
from uuid import UUID, uuid4

from pydantic import AfterValidator, BaseModel, Field, model_validator

from tests.fake_prefect.fields import Json
from tests.fake_prefect.filters import Combined, Ids, Names, Order, Query, Tags, Times, matches, page
from tests.fake_prefect.store import Row
from tests.fake_prefect.wire import Answer, Body, Call, Refusal, Route

LEAST_WAIT = timedelta(seconds=10)

# What each action has to name, and what the server adds. Those with a source name their target, or infer it.
REQUIRED: dict[str, tuple[str, ...]] = {
    "change-flow-run-state": ("state",),
    "send-notification": ("block_document_id", "body"),
    "call-webhook": ("block_document_id",),
}
DEFAULTS: dict[str, Json] = {
    "do-nothing": {},
    "cancel-flow-run": {},
    "suspend-flow-run": {},
    "resume-flow-run": {},
    "delete-flow-run": {},
    "change-flow-run-state": {"name": None, "state": None, "message": None, "force": False},
    "send-notification": {"block_document_id": None, "subject": "Prefect automated notification", "body": None},
    "call-webhook": {"block_document_id": None, "payload": ""},
    "run-deployment": {"parameters": None, "job_variables": None, "schedule_after": 0.0},
    "pause-deployment": {},
    "resume-deployment": {},
    "pause-work-queue": {},
    "resume-work-queue": {},
    "pause-work-pool": {},
    "resume-work-pool": {},
    "pause-automation": {},
    "resume-automation": {},
}
TARGETS = ("deployment", "work-queue", "work-pool", "automation")


def _action(action: Json) -> Json:
    kind = action.get("type")
    if kind not in DEFAULTS:
        raise ValueError(f"Input should be one of {', '.join(DEFAULTS)}")
    defaults = {"type": kind, **DEFAULTS[kind]}
    missing = [name for name in REQUIRED.get(kind, ()) if name not in action]
    if missing:
        raise ValueError(f"Field required: {', '.join(missing)}")
    for target in TARGETS:
        if kind.endswith(f"-{target}"):
            _check_target(action, f"{target.replace('-', '_')}_id")
            defaults |= {"source": "selected", f"{target.replace('-', '_')}_id": None}
    return {name: action.get(name, value) for name, value in defaults.items()}


def _check_target(action: Json, id: str) -> None:
    wanted = action.get("source", "selected") == "selected"
    if wanted != bool(action.get(id)):
        raise ValueError(f"{id} is {'required' if wanted else 'not allowed'}")


class EventTrigger(BaseModel):
    type: Literal["event"] = "event"
    match: Json = Field(default_factory=dict)
    match_related: Json | list[Json] = Field(default_factory=dict)
    after: set[str] = Field(default_factory=set)
    expect: set[str] = Field(default_factory=set)
    for_each: set[str] = Field(default_factory=set)
    posture: Literal["Reactive", "Proactive"]
    threshold: int = 1
    within: Annotated[timedelta, Field(ge=timedelta(0))] = timedelta(0)

    @model_validator(mode="after")
    def _patient(self) -> EventTrigger:
        if self.posture == "Proactive" and not self.within:
            self.within = LEAST_WAIT
        if self.posture == "Proactive" and self.within < LEAST_WAIT:
            raise ValueError("`within` for Proactive triggers must be greater than or equal to 10 seconds")
        return self

    def kept(self) -> Json:
        """With an id that is new at each write, and its sets as lists, in no order that the sender knows."""
        sets = {name: sorted(getattr(self, name)) for name in ("after", "expect", "for_each")}
        return {"id": uuid4(), **self.model_dump(), **sets}


class Composite(BaseModel):
    triggers: list[Trigger]
    within: timedelta | None

    def kept(self) -> Json:
        return {"id": uuid4(), **self.model_dump(), "triggers": [trigger.kept() for trigger in self.triggers]}


class CompoundTrigger(Composite):
    type: Literal["compound"] = "compound"
    require: int | Literal["any", "all"]


class SequenceTrigger(Composite):
    type: Literal["sequence"] = "sequence"


Trigger = EventTrigger | CompoundTrigger | SequenceTrigger
Action = Annotated[Json, AfterValidator(_action)]


class AutomationUpdate(Body):
    name: str
    description: str = ""
    enabled: bool = True
    tags: list[str] = Field(default_factory=list)
    trigger: Trigger
    actions: list[Action]
    actions_on_trigger: list[Action] = Field(default_factory=list)
    actions_on_resolve: list[Action] = Field(default_factory=list)


class AutomationCreate(AutomationUpdate):
    owner_resource: str | None = None


class AutomationPatch(Body):
    enabled: bool = True


class AutomationFilter(Combined):
    id: Ids | None = None
    name: Names | None = None
    created: Times | None = None
    tags: Tags | None = None


class AutomationQuery(Query):
    automations: AutomationFilter | None = None
    sort: Order = "NAME_ASC"


def create(call: Call) -> Answer:
    body = call.body(AutomationCreate)
    values = {**body.model_dump(), "trigger": body.trigger.kept()}
    return Answer(201, _shape(call.store.automations.add(**values)))


def find(call: Call) -> Answer:
    query = call.body(AutomationQuery, optional=True)
    rows = [row for row in call.store.automations.where() if matches(query.automations, row)]
    return Answer(200, [_shape(row) for row in page(rows, query)])


def read(call: Call) -> Answer:
    return Answer(200, _shape(_automation(call)))


def update(call: Call) -> Answer:
    """A PUT, but what it does not name stays as it was."""
    body = call.body(AutomationUpdate)
    automation = _automation(call)
    call.store.automations.change(automation, **{**body.sent(), "trigger": body.trigger.kept()})
    return Answer(204)


def patch(call: Call) -> Answer:
    body = call.body(AutomationPatch)
    call.store.automations.change(_automation(call), **body.sent())
    return Answer(204)


def delete(call: Call) -> Answer:
    call.store.automations.remove(_automation(call))
    return Answer(204)


def find_related(call: Call) -> Answer:
    """Those that the resource owns, and those that start it."""
    resource = call.path["resource"]
    rows = [row for row in call.store.automations.where() if resource in (row["owner_resource"], *_started_by(row))]
    return Answer(200, [_shape(row) for row in rows])


def delete_owned(call: Call) -> Answer:
    call.store.automations.remove(*call.store.automations.where(owner_resource=call.path["resource"]))
    return Answer(202)


def _automation(call: Call) -> Row:
    automation = call.store.automations.get(call.id())
    if automation is None:
        raise Refusal(404, {"exception_message": "Automation not found"})
    return automation


def _started_by(automation: Row) -> list[str]:
    runs = [action for action in automation["actions"] if action["type"] == "run-deployment"]
    return [f"prefect.deployment.{UUID(str(run['deployment_id']))}" for run in runs if run["source"] == "selected"]


def _shape(automation: Row) -> Row:
    return {name: value for name, value in automation.items() if name != "owner_resource"}


ROUTES = (
    Route("POST", "/automations/", create, writes=True),
    Route("POST", "/automations/filter", find),
    Route("GET", "/automations/{id}", read),
    Route("PUT", "/automations/{id}", update, writes=True),
    Route("PATCH", "/automations/{id}", patch, writes=True),
    Route("DELETE", "/automations/{id}", delete, writes=True),
    Route("GET", "/automations/related-to/{resource}", find_related),
    Route("DELETE", "/automations/owned-by/{resource}", delete_owned, writes=True),
)
