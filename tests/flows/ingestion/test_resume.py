"""A backfill that is killed and started again ends with the warehouse that one run makes."""

from __future__ import annotations

from datetime import date
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import event, select

from flows.ingestion.loading import load_symbol, wanted
from flows.ingestion.steps import Run
from flows.market_data import upserts, warehouse
from tests.flows.ingestion.stock import Stock

FIRST, LAST = date(2023, 1, 2), date(2024, 6, 28)
SYMBOLS = ["AAA", "BBB", "CCC"]
SERIES = 2 * len(SYMBOLS)


class Killed(BaseException):
    """Nothing catches it."""


pytest_plugins = ["tests.postgres"]


def at(url: str) -> Run:
    run = Run(url, Stock())
    warehouse.upgrade(run.engine)
    return run


def backfill(run: Run) -> None:
    for symbol, orders in wanted(run, SYMBOLS, FIRST, LAST, ["1d"], incremental=True).items():
        load_symbol.fn(run, symbol, orders)


def contents(run: Run) -> list[Any]:
    """All bars to the last bit, and the symbols: what is kept, apart from the notes of how it came."""
    bars, symbols = warehouse.bars, warehouse.symbols.c.symbol
    with run.engine.connect() as connection:
        found = connection.execute(select(bars).order_by(*bars.primary_key)).all()
        return [*found, *connection.execute(select(symbols).order_by(symbols)).all()]


def kill_at(run: Run, statement: str, count: int, patch: pytest.MonkeyPatch | None = None) -> None:
    """Die when the statement is sent for the so-manieth time, or at a commit, before it is done. Bulk writes pass SQLAlchemy
    by on SQLite: with `patch` they are seen, too."""
    left = [count]

    def die(*arguments: Any) -> None:
        sent = "COMMIT" if len(arguments) == 1 else str(arguments[2]).replace('"', "")
        left[0] -= statement in sent
        if left[0] == 0:
            left[0] = -1  # once only
            raise Killed

    if patch:
        driver = upserts._driver

        def watched(connection: Any, text: str) -> Any:
            die(None, None, text)
            return driver(connection, text)

        patch.setattr(upserts, "_driver", watched)
    event.listen(run.engine, "commit" if statement == "COMMIT" else "before_cursor_execute", die)


@pytest.fixture(scope="module")
def one_run(tmp_path_factory: pytest.TempPathFactory) -> list[Any]:
    run = at(f"sqlite:///{tmp_path_factory.mktemp('one')}/warehouse.db")
    backfill(run)
    assert len(contents(run)) == 390 * SERIES + len(SYMBOLS)
    return contents(run)


@pytest.mark.parametrize(
    ("statement", "count"),
    [
        ("INSERT INTO symbols", 1),
        ("INSERT INTO bars", 1),
        ("INSERT INTO bars", 4),
        ("INSERT INTO load_runs", 2),
        ("SELECT min", 5),
        ("COMMIT", 1),
        ("COMMIT", 2),
        ("COMMIT", SERIES),
    ],
)
def test_killed_at_a_statement_and_resumed_it_ends_as_in_one_run(
    url: str, one_run: list[Any], statement: str, count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = at(url)
    kill_at(run, statement, count, monkeypatch)
    with pytest.raises(Killed):
        backfill(run)
    assert contents(run) != one_run
    backfill(run)
    assert contents(run) == one_run
    run.engine.dispose()


@pytest.mark.parametrize("asked", [0, 1, 3, 5])
def test_killed_at_a_request_it_goes_on_with_that_request_and_repeats_no_other(
    tmp_path: Path, one_run: list[Any], asked: int
) -> None:
    run = at(f"sqlite:///{tmp_path}/warehouse.db")
    provider: Any = run.provider
    orders = [one for some in wanted(run, SYMBOLS, FIRST, LAST, ["1d"], incremental=True).values() for one in some]
    for order in orders[:asked]:
        load_symbol.fn(run, order.symbol, [order])
    provider.failing.append(Killed())
    with pytest.raises(Killed):
        backfill(run)
    backfill(run)
    assert contents(run) == one_run
    assert [(symbol, adjusted) for symbol, adjusted, *_ in provider.asked] == [
        (order.symbol, order.adjusted) for order in [*orders[: asked + 1], *orders[asked:]]
    ]


def test_killed_again_and_again_each_time_one_series_later_it_still_ends(tmp_path: Path, one_run: list[Any]) -> None:
    run = at(f"sqlite:///{tmp_path}/warehouse.db")
    provider: Any = run.provider
    kills = 0
    while kills < SERIES:
        kill_at(run, "COMMIT", 2)
        try:
            backfill(run)
        except Killed:
            kills += 1
        else:
            break
    assert contents(run) == one_run
    assert kills == SERIES - 1
    assert len(provider.asked) == SERIES + kills
