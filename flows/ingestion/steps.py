"""One series from the provider into the warehouse: fetch, check, store. Plain functions, without Prefect.

What is stored and the note that it is loaded are one transaction: a process that is killed leaves both or neither.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime, time, timedelta
from typing import TYPE_CHECKING

from sqlalchemy import func, select
from sqlalchemy.engine import Engine
from sqlalchemy.exc import SQLAlchemyError

from flows.ingestion.orders import Order
from flows.market_data import quality, warehouse
from flows.market_data.connection import engine_at
from flows.market_data.models import now
from flows.market_data.providers import Provider, today_at_the_exchange

if TYPE_CHECKING:
    import pandas as pd

EARLY = "early"  # loaded before the days were over: they count as missing, and are fetched again
RESTATED = 1e-4  # a stored close that differs by more than this share was adjusted by another factor
ONE_DAY = timedelta(days=1)


@dataclass(frozen=True)
class Run:
    """What every step of one run needs. It can be pickled, for another process: connections stay behind."""

    url: str = field(repr=False)  # of the warehouse; it may hold a password
    provider: Provider
    id: str | None = None  # of the flow run
    over: date = field(default_factory=lambda: today_at_the_exchange() - ONE_DAY)  # the newest day that can't change

    @property
    def engine(self) -> Engine:
        return engine_at(self.url)


@dataclass(frozen=True)
class Part:
    """One order's bars: as they came, then only the good ones, and how many were rejected and why."""

    order: Order
    bars: pd.DataFrame
    started: datetime
    rejected: dict[str, int] = field(default_factory=dict)


def fetch(run: Run, order: Order) -> Part:
    """The order's bars as the provider has them today.

    Prices are adjusted anew after each split or dividend, all the way back. So of a daily series one day more is
    fetched, that is stored already: where it differs, the whole series is fetched instead of the order's days.
    """
    started = now()
    with noted(run, order, started):
        seam = beside(run.engine, run.provider.source(order.adjusted), order)
        if seam is None:
            return Part(order, ask(run, order), started)
        bars = ask(run, order.reaching(seam.day))
        if restated(bars, seam):
            whole = order.reaching(seam.oldest, seam.newest)
            return Part(whole, ask(run, whole), started)
        inside = of_order(bars, order)
        # None: the provider is asked without the day beside, for it to say if it still knows the symbol.
        return Part(order, ask(run, order) if inside.empty else inside, started)


def ask(run: Run, order: Order) -> pd.DataFrame:
    return run.provider.fetch_bars(order.symbol, order.interval, order.first, order.last, order.adjusted)


def check(run: Run, part: Part) -> Part:
    """Only the good bars. A ValueError if there are bars and none is good: that is no load."""
    with noted(run, part.order, part.started):
        checked = quality.validate(part.bars)
        if len(part.bars) and checked.good.empty:
            raise ValueError(
                f"All {len(part.bars)} bars of {part.order.symbol} were rejected: {told(checked.reasons)}."
            )
        return replace(part, bars=checked.good, rejected=checked.reasons)


def store(run: Run, part: Part) -> int:
    """Bars and the note of their load, both or neither. Answers how many bars were new or different."""
    order = part.order
    with noted(run, order, part.started):
        load = note(run, order, part.started, *settled(run, order, len(part.bars)), rows=len(part.bars))
        source = run.provider.source(order.adjusted)
        return warehouse.upsert_bars(run.engine, order.symbol, source, part.bars, order.interval, load)


def settled(run: Run, order: Order, bars: int) -> tuple[str, date]:
    """The load's status, and its last day: what is not over yet must be fetched again."""
    if order.first > run.over:
        return EARLY, order.last
    return (warehouse.LOADED if bars else warehouse.EMPTY), min(order.last, run.over)


def note(
    run: Run, order: Order, started: datetime, status: str, last: date, rows: int = 0, error: str | None = None
) -> warehouse.Load:
    source = run.provider.source(order.adjusted)
    return warehouse.Load(
        order.symbol, source, order.interval, order.first, last, status, started, now(), rows, error, run.id
    )


@contextmanager
def noted(run: Run, order: Order, started: datetime) -> Iterator[None]:
    """Note each try that fails. If the warehouse itself is what fails, its own error is the one to see."""
    try:
        yield
    except Exception as error:
        failed = note(run, order, started, warehouse.FAILED, order.last, error=str(error))
        with suppress(SQLAlchemyError):
            warehouse.record_load(run.engine, failed)
        raise


@dataclass(frozen=True)
class Seam:
    """A stored bar just outside of an order's days, and how far the stored series goes."""

    day: date
    close: float
    oldest: date
    newest: date


def beside(engine: Engine, source: str, order: Order) -> Seam | None:
    """The newest stored bar before the order's days, else the oldest after them. Of daily bars only: providers keep
    hours and minutes for a while, so that a whole series could not be fetched again."""
    if order.interval != warehouse.DAILY:
        return None
    bar = warehouse.bars.c
    same = [bar.symbol == order.symbol, bar.source == source, bar.interval == order.interval]
    with engine.connect() as connection:
        oldest, newest = connection.execute(select(func.min(bar.time), func.max(bar.time)).where(*same)).one()
        if oldest is None:
            return None
        query = select(bar.time, bar.close).where(*same).limit(1)
        before = query.where(bar.time < midnight(order.first)).order_by(bar.time.desc())
        after = query.where(bar.time >= midnight(order.last + ONE_DAY)).order_by(bar.time)
        found = connection.execute(before).first() or connection.execute(after).first()
    return None if found is None else Seam(found.time.date(), found.close, oldest.date(), newest.date())


def restated(bars: pd.DataFrame, seam: Seam) -> bool:
    """Has the stored day another close today? One that is missing, or is not sound, says nothing."""
    closes = bars.loc[bars["time"] == midnight(seam.day), "close"]
    return bool((abs(closes / seam.close - 1) > RESTATED).any())


def of_order(bars: pd.DataFrame, order: Order) -> pd.DataFrame:
    """Without the day beside it. A bar without a time stays, to be rejected and counted."""
    kept = bars["time"].isna() | bars["time"].between(
        midnight(order.first), midnight(order.last + ONE_DAY), inclusive="left"
    )
    return bars[kept].reset_index(drop=True)


def midnight(day: date) -> datetime:
    return datetime.combine(day, time(), UTC)


def told(reasons: dict[str, int]) -> str:
    return ", ".join(f"{count} {reason}" for reason, count in reasons.items())
