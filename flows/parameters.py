"""Types of parameters that several flows have. Prefect checks them before a run, and the UI shows their bounds."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

Days = Annotated[int, Field(ge=1, le=36_500)]
Share = Annotated[float, Field(ge=0, le=1)]
