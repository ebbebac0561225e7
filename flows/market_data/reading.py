"""Bars of the warehouse -> frames, column by column."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sqlalchemy import Select, type_coerce
from sqlalchemy.engine import Connection
from sqlalchemy.sql.dml import ReturningDelete
from sqlalchemy.sql.sqltypes import NullType

from flows.market_data.models import bars

if TYPE_CHECKING:
    import pandas as pd

BAR = ["time", "open", "high", "low", "close", "volume"]
TYPES = {"open": "float64", "high": "float64", "low": "float64", "close": "float64", "volume": "int64"}

COLUMNS: list[Any] = [type_coerce(bars.c.time, NullType()).label("time"), *(bars.c[name] for name in TYPES)]
"""Of a bar, to be selected. Times as the driver gives them: pandas makes moments of a whole column faster."""


def as_frame(connection: Connection, statement: Select[Any] | ReturningDelete[Any]) -> pd.DataFrame:
    """What COLUMNS give, and `symbol` where it is asked for too. Times are in UTC."""
    import pandas as pd

    result = connection.execute(statement)
    frame = pd.DataFrame([tuple(row) for row in result], columns=list(result.keys()))
    return frame.assign(time=pd.to_datetime(frame["time"], utc=True)).astype(TYPES)
