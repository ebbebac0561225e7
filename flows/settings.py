"""What the environment decides for every flow, asked of Prefect: where the warehouse is, which provider answers."""

from __future__ import annotations

import os
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Protocol

from prefect.blocks.system import Secret
from prefect.concurrency.sync import concurrency
from prefect.exceptions import ObjectNotFound
from prefect.settings import get_current_settings
from prefect.variables import Variable

from flows.market_data import sample

if TYPE_CHECKING:
    from datetime import date

    import pandas as pd

WAREHOUSE_SECRET = "warehouse-url"
WAREHOUSE_VARIABLE = "WAREHOUSE_URL"
PROVIDER_VARIABLE = "market_data_provider"
WRITE_LIMIT = "warehouse-writes"
SECONDS_TO_GIVE_UP_A_TURN = 60  # of a run that was killed; the shortest that Prefect takes


class Provider(Protocol):
    """What a provider's module has."""

    @property
    def NAME(self) -> str: ...
    @property
    def SYMBOLS(self) -> tuple[str, ...]: ...

    def today(self) -> date: ...
    def fetch_bars(self, symbol: str, start: date, end: date, adjusted: bool = False) -> pd.DataFrame: ...


PROVIDERS: dict[str, Provider] = {"sample": sample}


def provider() -> Provider:
    """The provider that the Prefect variable names; `sample` where nobody set one."""
    name = Variable.get(PROVIDER_VARIABLE, default="sample")
    if not isinstance(name, str) or name not in PROVIDERS:
        raise ValueError(
            f"The Prefect variable '{PROVIDER_VARIABLE}' is {name!r}; known providers: {', '.join(PROVIDERS)}. "
            "Set it under `variables` in the environment's file and deploy."
        )
    return PROVIDERS[name]


def source(of: Provider, adjusted: bool) -> str:
    """The provider's name in the warehouse: unadjusted and adjusted prices are different sources."""
    return f"{of.NAME}_adjusted" if adjusted else of.NAME


def warehouse_url() -> str:
    """From the Secret block, else the process's environment, else a SQLite file in Prefect's home.

    In Prefect's home because a run's own folder is a clone that is thrown away after it.
    """
    return (
        _secret() or os.environ.get(WAREHOUSE_VARIABLE) or f"sqlite:///{get_current_settings().home / 'warehouse.db'}"
    )


def turn_to_write() -> AbstractContextManager[None]:
    """Wait for a slot of the global concurrency limit: so many runs may write to the warehouse at a time."""
    return concurrency(WRITE_LIMIT, lease_duration=SECONDS_TO_GIVE_UP_A_TURN)


def _secret() -> str | None:
    try:
        block = Secret.load(WAREHOUSE_SECRET)
    except ValueError as error:
        if isinstance(error.__cause__, ObjectNotFound):
            return None
        raise
    return str(block.get())  # type: ignore[union-attr]  # in a flow that is not async, load answers at once
