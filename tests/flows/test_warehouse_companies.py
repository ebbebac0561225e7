"""Company information and key statistics: known facts in columns, the rest kept as it came."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date
from math import nan
from typing import Any

import pytest
from sqlalchemy import Engine, Table, select, text
from sqlalchemy.exc import StatementError

from flows.market_data import models, warehouse
from flows.market_data.providers import facts

pytest_plugins = ["tests.postgres"]

APPLE: dict[str, Any] = {"name": "Apple Inc.", "employees": 164_000, "listed": date(1980, 12, 12), "cik": "0000320193"}
FRIDAY, SATURDAY = date(2013, 3, 1), date(2013, 3, 2)


@pytest.fixture
def engine(url: str) -> Iterator[Engine]:
    engine = warehouse.connect(url)
    yield engine
    engine.dispose()


def told(engine: Engine, table: Table) -> list[dict[str, Any]]:
    """The rows, without what nobody told."""
    with engine.connect() as connection:
        rows = connection.execute(select(table).order_by(*table.primary_key)).mappings().all()
    return [{name: value for name, value in row.items() if value is not None} for row in rows]


def test_known_facts_have_columns_and_the_rest_is_kept_beside_them(engine: Engine) -> None:
    assert warehouse.upsert_company_information(engine, "yahoo", {"AAPL": APPLE}) == 1
    [row] = told(engine, warehouse.company_information)
    assert row.pop("other") == {"cik": "0000320193"}
    assert row == {"symbol": "AAPL", "source": "yahoo"} | {name: APPLE[name] for name in APPLE if name != "cik"}


def test_the_newest_information_replaces_the_one_before_and_equal_counts_as_nothing(engine: Engine) -> None:
    facts: dict[str, dict[str, Any]] = {"AAPL": APPLE, "IBM": {"name": "IBM"}}
    assert warehouse.upsert_company_information(engine, "yahoo", facts) == 2
    assert warehouse.upsert_company_information(engine, "yahoo", facts) == 0
    assert warehouse.upsert_company_information(engine, "yahoo", {**facts, "IBM": {"sector": "Technology"}}) == 1
    assert told(engine, warehouse.company_information)[1] == {
        "symbol": "IBM",
        "source": "yahoo",
        "sector": "Technology",
    }


def test_statistics_are_kept_for_each_day_and_source(engine: Engine) -> None:
    facts = {"AAPL": {"market_cap": 4.04e11, "beta": nan, "when": SATURDAY, "who": None}}
    for source, day in [("yahoo", FRIDAY), ("yahoo", SATURDAY), ("polygon", FRIDAY)]:
        assert warehouse.upsert_key_statistics(engine, source, facts, day) == 1
        assert warehouse.upsert_key_statistics(engine, source, facts, day) == 0
    rows = told(engine, warehouse.key_statistics)
    assert [(row["source"], row["day"]) for row in rows] == [
        ("polygon", FRIDAY),
        ("yahoo", FRIDAY),
        ("yahoo", SATURDAY),
    ]
    assert rows[0]["market_cap"] == 4.04e11 and "beta" not in rows[0]
    assert rows[0]["other"] == {"when": "2013-03-02"}


def test_statistics_that_say_their_day_are_of_that_day(engine: Engine) -> None:
    facts: dict[str, dict[str, Any]] = {
        "AAPL": {"symbol": "AAPL", "day": FRIDAY, "beta": 1.2},
        "IBM": {"day": None, "beta": 0.7},
    }
    assert warehouse.upsert_key_statistics(engine, "yahoo", facts, SATURDAY) == 2
    assert told(engine, warehouse.key_statistics) == [
        {"symbol": "AAPL", "source": "yahoo", "day": FRIDAY, "beta": 1.2},
        {"symbol": "IBM", "source": "yahoo", "day": SATURDAY, "beta": 0.7},
    ]


def test_no_companies_are_no_error(engine: Engine) -> None:
    assert warehouse.upsert_company_information(engine, "yahoo", {}) == 0


def test_facts_that_fail_for_one_company_are_written_for_none(engine: Engine) -> None:
    with pytest.raises((StatementError, TypeError), match="not JSON serializable"):
        warehouse.upsert_company_information(engine, "yahoo", {"AAPL": APPLE, "IBM": {"unheard of": object()}})
    assert told(engine, warehouse.company_information) == []
    assert told(engine, warehouse.symbols) == []


def test_nothing_else_told_is_null_and_not_a_text_that_says_so(engine: Engine) -> None:
    warehouse.upsert_company_information(engine, "yahoo", {"IBM": {"name": "IBM"}})
    with engine.connect() as connection:
        assert connection.scalar(text("SELECT count(*) FROM company_information WHERE other IS NULL")) == 1


def test_every_fact_that_providers_tell_has_a_column() -> None:
    assert set(facts.COMPANY) <= set(models.CompanyInformation.__table__.columns.keys())
    assert set(facts.STATISTICS) <= set(models.KeyStatistics.__table__.columns.keys())
