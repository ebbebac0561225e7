"""Symbols, bars and indicators.

Warehouses from before there were migrations have these tables: hence IF NOT EXISTS, which leaves them as they are.
"""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

INDICATORS = (
    "return_1d",
    "return_5d",
    "return_20d",
    "volatility_20d",
    "sma_20",
    "sma_50",
    "sma_200",
    "bollinger_upper",
    "bollinger_lower",
    "ema_12",
    "ema_26",
    "macd",
    "macd_signal",
    "macd_histogram",
    "rsi_14",
    "atr_14",
)


def _keys() -> list[sa.Column[Any]]:
    return [
        sa.Column("symbol", sa.String(32), sa.ForeignKey("symbols.symbol"), primary_key=True),
        sa.Column("source", sa.String(32), primary_key=True),
        sa.Column("interval", sa.String(8), primary_key=True),
        sa.Column("time", sa.DateTime(timezone=True), primary_key=True),
    ]


def upgrade() -> None:
    op.create_table(
        "symbols",
        sa.Column("symbol", sa.String(32), primary_key=True),
        sa.Column("added", sa.DateTime(timezone=True), nullable=False),
        if_not_exists=True,
    )
    op.create_table(
        "bars",
        *_keys(),
        *(sa.Column(name, sa.Double, nullable=False) for name in ("open", "high", "low", "close")),
        sa.Column("volume", sa.BigInteger, nullable=False),
        if_not_exists=True,
    )
    op.create_table("indicators", *_keys(), *(sa.Column(name, sa.Double) for name in INDICATORS), if_not_exists=True)


def downgrade() -> None:
    for table in ("indicators", "bars", "symbols"):
        op.drop_table(table)
