"""The field types that several bodies use, with the real server's words when a value is refused."""

from __future__ import annotations

import re
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, Field

Name = Annotated[str, Field(pattern=r"^[^/%&><]+$")]
Labels = Annotated[dict[str, bool | int | float | str], BeforeValidator(lambda value: {} if value is None else value)]
Json = dict[str, Any]


def dashed(field: str) -> AfterValidator:
    def check(value: str) -> str:
        if not re.match(r"^[a-z0-9-]*$", value):
            raise ValueError(f"{field} must only contain lowercase letters, numbers, and dashes.")
        return value

    return AfterValidator(check)
