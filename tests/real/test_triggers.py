"""A deployment that an event starts, with what the event says."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from tests.real.stage import Stage

pytestmark = pytest.mark.usefixtures("warm_loader")

DECLARED = Path(__file__).parents[2] / "flows/analytics/deployments.yaml"


def test_what_an_event_says_is_handed_on_as_the_file_has_it_and_stays_so(stage: Stage) -> None:
    [indicators] = yaml.safe_load(DECLARED.read_text())
    [trigger] = indicators["triggers"]
    said = dict(
        zip(("name", "count"), trigger["parameters"].values(), strict=True)
    )  # this stage's flow takes these two
    trigger = {**trigger, "parameters": said}
    stage.release(stage.entry(triggers=[{**trigger, "name": stage.named("after")}]))
    [automation] = stage.automations().values()
    [action] = automation["actions"]
    assert action["parameters"] == trigger["parameters"]
    assert action["parameters"]["name"] == "{{ event.payload.symbols }}"
    assert automation["trigger"]["match"] == trigger["match"]
    stage.nothing_left()
