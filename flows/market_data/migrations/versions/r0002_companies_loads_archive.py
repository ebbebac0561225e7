"""Company information, key statistics, load runs and the archive's ledger."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

MOMENT = sa.DateTime(timezone=True)
OTHER = sa.JSON().with_variant(JSONB(), "postgresql")
STATISTICS = (
    "last_price",
    "market_cap",
    "enterprise_value",
    "shares_outstanding",
    "trailing_pe",
    "forward_pe",
    "price_to_book",
    "earnings_per_share",
    "dividend_yield",
    "beta",
    "high_52_weeks",
    "low_52_weeks",
    "average_volume",
)


def upgrade() -> None:
    op.create_table(
        "company_information",
        sa.Column("symbol", sa.String(32), sa.ForeignKey("symbols.symbol"), primary_key=True),
        sa.Column("source", sa.String(32), primary_key=True),
        *(
            sa.Column(name, sa.String(255))
            for name in ("name", "exchange", "currency", "sector", "industry", "country")
        ),
        sa.Column("website", sa.Text),
        sa.Column("employees", sa.BigInteger),
        *(sa.Column(name, sa.Date) for name in ("listed", "delisted", "first_bar", "last_bar")),
        sa.Column("description", sa.Text),
        sa.Column("other", OTHER),
    )
    op.create_table(
        "key_statistics",
        sa.Column("symbol", sa.String(32), sa.ForeignKey("symbols.symbol"), primary_key=True),
        sa.Column("source", sa.String(32), primary_key=True),
        sa.Column("day", sa.Date, primary_key=True),
        *(sa.Column(name, sa.Double) for name in STATISTICS),
        sa.Column("other", OTHER),
    )
    op.create_table(
        "load_runs",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), primary_key=True),
        sa.Column("symbol", sa.String(32), nullable=False),
        sa.Column("source", sa.String(32), nullable=False),
        sa.Column("interval", sa.String(8), nullable=False),
        sa.Column("first", sa.Date, nullable=False),
        sa.Column("last", sa.Date, nullable=False),
        sa.Column("status", sa.String(16), nullable=False),
        sa.Column("rows", sa.BigInteger, nullable=False),
        sa.Column("error", sa.Text),
        sa.Column("flow_run_id", sa.String(36)),
        sa.Column("started", MOMENT, nullable=False),
        sa.Column("ended", MOMENT, nullable=False),
    )
    op.create_index("ix_load_runs_of", "load_runs", ["source", "interval", "symbol"])
    op.create_table(
        "archive_ledger",
        sa.Column("source", sa.String(32), primary_key=True),
        sa.Column("interval", sa.String(8), primary_key=True),
        sa.Column("symbol", sa.String(32), sa.ForeignKey("symbols.symbol"), primary_key=True),
        sa.Column("year", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("path", sa.Text, primary_key=True),
        sa.Column("rows", sa.BigInteger, nullable=False),
        sa.Column("checksum", sa.String(64), nullable=False),
        sa.Column("written", MOMENT, nullable=False),
        sa.Column("verified", MOMENT),
        sa.Column("deleted", MOMENT),
    )


def downgrade() -> None:
    op.drop_index("ix_load_runs_of", "load_runs")
    for table in ("archive_ledger", "load_runs", "key_statistics", "company_information"):
        op.drop_table(table)
