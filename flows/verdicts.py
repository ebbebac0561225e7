"""When a run fails because of the symbols that did. Pure."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

Share = Annotated[float, Field(ge=0, le=1)]


def too_many_failed(failed: int, of: int, max_share: float) -> bool:
    """All symbols are always too many, whatever the share."""
    return failed > 0 and (failed == of or failed > max_share * of)
