"""A pool's base job template: what is wrong with one, and which job variables do not fit it."""

from __future__ import annotations

from typing import Any

import pytest

from deployer.template import faults, unfit

TEMPLATE: dict[str, Any] = {
    "job_configuration": {"command": "{{ command }}", "limits": {"cpu": "{{cpu}}"}},
    "variables": {"properties": {"command": {"type": "string"}, "cpu": {"type": "integer", "default": 1}}},
}


def variables(**properties: Any) -> dict[str, Any]:
    return {**TEMPLATE, "variables": {"properties": {**TEMPLATE["variables"]["properties"], **properties}}}


def test_a_template_whose_parts_fit_each_other_has_no_fault() -> None:
    assert faults(TEMPLATE) == []


@pytest.mark.parametrize(
    ("template", "fault"),
    [
        ({"variables": {}}, "has the keys job_configuration and variables"),
        ({"job_configuration": [], "variables": {}}, "are objects"),
        (
            {**TEMPLATE, "job_configuration": {"a": ["x {{ cup }}"]}},
            "{{ cup }} is no variable of it. Did you mean 'cpu'?",
        ),
        (variables(cpu={"type": "integer", "default": "1"}), "default.cpu: '1' is not of type 'integer'."),
        (variables(cpu={"type": "number of"}), "variables.properties.cpu.type is no JSON Schema"),
        (variables(cpu={"$ref": "#/$defs/size", "default": 1}), "a $ref leads nowhere: /$defs/size"),
        (
            variables(cpu={"$ref": "http://127.0.0.1:9/schema", "default": 1}),
            "a $ref leads nowhere: http://127.0.0.1:9/schema",
        ),
        (
            variables(cpu={"$ref": "#/properties/cpu", "default": 1}),
            "the template's schema cannot be applied: a $ref leads back to itself.",
        ),
    ],
)
def test_what_prefect_would_refuse_is_told(template: Any, fault: str) -> None:
    (found,) = faults(template)
    assert fault in found


def test_a_part_of_env_is_a_job_variable_too() -> None:
    assert unfit("p", variables(env={"type": "object"}), {"env.LOG_LEVEL": "debug"}) == []
    ((path, message),) = unfit("p", TEMPLATE, {"env.LOG_LEVEL": "debug"})
    assert (
        path == ("env.LOG_LEVEL",)
        and message == "the pool p has no job variable 'env.LOG_LEVEL'. It takes command, cpu."
    )


def test_what_is_required_has_to_come_from_a_default_or_from_the_deployment() -> None:
    template = variables()
    template["variables"]["required"] = ["cpu", "command"]
    assert unfit("p", template, {}) == [((), "the pool p needs the job variable 'command', and has no default for it.")]
    assert unfit("p", template, {"command": "python"}) == []


def test_a_fault_deep_inside_a_job_variable_is_told_with_its_path() -> None:
    template = variables(mounts={"type": "array", "items": {"type": "object", "required": ["name"]}})
    assert unfit("p", template, {"mounts": [{"name": "a"}, {}]}) == [
        (("mounts", 1), "job variable mounts[1]: 'name' is a required property.")
    ]


def test_of_alternatives_the_nearest_is_told() -> None:
    template = variables(size={"anyOf": [{"type": "string", "pattern": "^[0-9]+Gi$"}, {"type": "null"}]})
    ((_, message),) = unfit("p", template, {"size": "1gb"})
    assert message == "job variable size: '1gb' does not match '^[0-9]+Gi$'."


def test_a_template_that_says_nothing_of_its_variables_takes_all() -> None:
    assert unfit("p", {"job_configuration": {}, "variables": {}}, {"anything": 1}) == []


@pytest.mark.parametrize(
    ("rules", "value"),
    [
        ({"$ref": "#/properties/cpu"}, 1),
        ({"pattern": "^\\p{L}+$"}, "a"),
        ({"type": "number of"}, 1),
        ({"multipleOf": 0}, 1),
        ({"minimum": "much"}, 1),
        ({"multipleOf": 0.5}, 10**400),
    ],
)
def test_a_schema_that_cannot_be_applied_is_told_of_a_declared_template_and_judges_nothing_in_a_live_one(
    rules: dict[str, Any], value: Any
) -> None:
    template = variables(cpu=rules)
    ((_, message),) = unfit("p", template, {"cpu": value})
    assert message.startswith("the pool p: the template's schema cannot be applied: ")
    assert unfit("p", template, {"cpu": value}, live=True) == []
    ((path, _),) = unfit("p", template, {"cpu": value, "cup": 1}, live=True)
    assert path == ("cup",)
