"""How a symbol is written: in capitals, no blanks around it. Prefect puts parameters of this type right."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated

from pydantic import StringConstraints

Symbol = Annotated[
    str,
    StringConstraints(
        strip_whitespace=True, to_upper=True, min_length=1, max_length=32, pattern=r"^[^\x00-\x1f\x7f]*$"
    ),
]


def chosen(wanted: Iterable[str] | None, known: Iterable[str], at_most: int | None = None) -> list[str]:
    """The wanted symbols, or all known ones: each once, in their order, the first `at_most` of them."""
    return list(dict.fromkeys(known if wanted is None else wanted))[:at_most]
