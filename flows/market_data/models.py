"""What the warehouse holds, a class a table.

One symbol's bar at one time is a row for each source and interval. Unadjusted and adjusted prices are different sources
(`yahoo`, `yahoo_adjusted`). Moments are UTC; a daily bar stands at midnight UTC of its trading day.

A change here needs a migration: `python -m flows.market_data.migrations revision "Add a column"`. Migrations only add,
so that an older release, rolled back to, still works on a newer warehouse.
"""

from __future__ import annotations

from datetime import UTC, date, datetime
from typing import Annotated, Any

from sqlalchemy import (
    JSON,
    BigInteger,
    Column,
    Date,
    DateTime,
    Double,
    ForeignKey,
    Index,
    Integer,
    String,
    Table,
    Text,
)
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.engine import Dialect
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column
from sqlalchemy.types import TypeDecorator

from flows.market_data.indicators import BARS_NEEDED


class UtcTime(TypeDecorator[datetime]):
    """A moment. SQLite keeps no time zone: there it is written as UTC, and read back as UTC."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError(f"The time {value} has no time zone; the warehouse takes times in UTC.")
        return value.astimezone(UTC)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


def now() -> datetime:
    return datetime.now(UTC)


KnownSymbol = Annotated[str, mapped_column(ForeignKey("symbols.symbol"), primary_key=True)]
Source = Annotated[str, mapped_column(String(32), primary_key=True)]
Interval = Annotated[str, mapped_column(String(8), primary_key=True)]  # 1d, 1h
Name = Annotated[str | None, mapped_column(String(255))]
Other = Annotated[
    dict[str, Any] | None, mapped_column(JSON(none_as_null=True).with_variant(JSONB(none_as_null=True), "postgresql"))
]


class Base(DeclarativeBase):
    type_annotation_map = {datetime: UtcTime, date: Date, float: Double, int: BigInteger, str: Text}  # noqa: RUF012


class Symbol(Base):
    __tablename__ = "symbols"

    symbol: Mapped[str] = mapped_column(String(32), primary_key=True)
    added: Mapped[datetime] = mapped_column(default=now)


class Bar(Base):
    __tablename__ = "bars"

    symbol: Mapped[KnownSymbol]
    source: Mapped[Source]
    interval: Mapped[Interval]
    time: Mapped[datetime] = mapped_column(primary_key=True)
    open: Mapped[float]
    high: Mapped[float]
    low: Mapped[float]
    close: Mapped[float]
    volume: Mapped[int]  # whole shares


class Indicators(Base):
    """A bar's technical indicators, a column each. NULL where there were too few bars before it."""

    __table__ = Table(
        "indicators",
        Base.metadata,
        Column("symbol", ForeignKey("symbols.symbol"), primary_key=True),
        Column("source", String(32), primary_key=True),
        Column("interval", String(8), primary_key=True),
        Column("time", UtcTime, primary_key=True),
        *(Column(name, Double) for name in BARS_NEEDED),
    )


class CompanyInformation(Base):
    """Who the company is, as one source tells it; the newest answer only."""

    __tablename__ = "company_information"

    symbol: Mapped[KnownSymbol]
    source: Mapped[Source]
    name: Mapped[Name]
    exchange: Mapped[Name]
    currency: Mapped[Name]
    sector: Mapped[Name]
    industry: Mapped[Name]
    country: Mapped[Name]
    website: Mapped[str | None]
    employees: Mapped[int | None]
    listed: Mapped[date | None]  # the first day on the exchange
    delisted: Mapped[date | None]  # the last
    first_bar: Mapped[date | None]  # the first day that the source has, which may be long after the listing
    last_bar: Mapped[date | None]
    description: Mapped[str | None]
    other: Mapped[Other]  # what only this source tells, by its own names


class KeyStatistics(Base):
    """The company's figures on one day, as one source tells them. Money is in the listing's currency."""

    __tablename__ = "key_statistics"

    symbol: Mapped[KnownSymbol]
    source: Mapped[Source]
    day: Mapped[date] = mapped_column(primary_key=True)
    last_price: Mapped[float | None]
    market_cap: Mapped[float | None]
    enterprise_value: Mapped[float | None]
    shares_outstanding: Mapped[float | None]
    trailing_pe: Mapped[float | None]
    forward_pe: Mapped[float | None]
    price_to_book: Mapped[float | None]
    earnings_per_share: Mapped[float | None]
    dividend_yield: Mapped[float | None]  # a fraction: 0.02 is 2 %
    beta: Mapped[float | None]
    high_52_weeks: Mapped[float | None]
    low_52_weeks: Mapped[float | None]
    average_volume: Mapped[float | None]  # shares a day
    other: Mapped[Other]


class LoadRun(Base):
    """One try to load one symbol's bars. The symbol may be one that no provider knows: hence no foreign key."""

    __tablename__ = "load_runs"
    __table_args__ = (Index("ix_load_runs_of", "source", "interval", "symbol"),)

    id: Mapped[int] = mapped_column(BigInteger().with_variant(Integer(), "sqlite"), primary_key=True)
    symbol: Mapped[str] = mapped_column(String(32))
    source: Mapped[str] = mapped_column(String(32))
    interval: Mapped[str] = mapped_column(String(8))
    first: Mapped[date]  # the days asked for, both included
    last: Mapped[date]
    status: Mapped[str] = mapped_column(String(16))  # loaded, empty, failed
    rows: Mapped[int]
    error: Mapped[str | None]
    flow_run_id: Mapped[str | None] = mapped_column(String(36))
    started: Mapped[datetime]
    ended: Mapped[datetime]


class ArchivedYear(Base):
    """A file of the archive: one symbol's bars of one year, of one source and interval."""

    __tablename__ = "archive_ledger"

    source: Mapped[Source]
    interval: Mapped[Interval]
    symbol: Mapped[KnownSymbol]
    year: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    path: Mapped[str] = mapped_column(primary_key=True)
    rows: Mapped[int]
    checksum: Mapped[str] = mapped_column(String(64))  # of the bars, not of the file: warehouse.checksum
    written: Mapped[datetime]
    verified: Mapped[datetime | None]  # read back from the archive, and equal
    deleted: Mapped[datetime | None]  # from the warehouse; empty again after a restore


metadata = Base.metadata
symbols, bars, indicators, company_information, key_statistics, load_runs, archive_ledger = (
    metadata.tables[name]
    for name in (
        "symbols",
        "bars",
        "indicators",
        "company_information",
        "key_statistics",
        "load_runs",
        "archive_ledger",
    )
)
