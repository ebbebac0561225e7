"""What the environment decides for every flow, asked of Prefect: where the warehouse is, which provider answers."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import partial
from typing import Any, Literal

from prefect.blocks.system import Secret
from prefect.concurrency.sync import concurrency, rate_limit
from prefect.exceptions import ObjectNotFound
from prefect.settings import get_current_settings
from prefect.variables import Variable

from flows.market_data.connection import lasts_only_for_the_run
from flows.market_data.places import Place
from flows.market_data.providers import Provider, Turn, polygon, sample, yahoo
from flows.market_data.providers import source as source_of
from flows.naming import own

WAREHOUSE_SECRET = "warehouse-url"
WAREHOUSE_VARIABLE = "WAREHOUSE_URL"
POLYGON_SECRET = "polygon-api-key"
POLYGON_VARIABLE, YAHOO_VARIABLE = "POLYGON_URL", "YAHOO_URL"  # other addresses: a gateway's, or a test's own server
PROVIDER_VARIABLE = "market_data_provider"
ARCHIVE_VARIABLE, BACKUP_VARIABLE = "archive_url", "backup_url"
STORAGE_SECRET = "storage-options"
WRITE_LIMIT = "warehouse-writes"
SECONDS_TO_GIVE_UP_A_TURN = 60  # of a run that was killed; the shortest that Prefect takes

ProviderName = Literal["sample", "yahoo", "polygon"]


def provider(name: str | None = None) -> Provider:
    """The provider of that name, else the one that the Prefect variable names; `sample` where nobody set one."""
    return PROVIDERS[provider_name(name)]()


def source(name: str | None, adjusted: bool) -> str:
    """What that provider's prices are called in the warehouse. To read them there needs no key of the provider's."""
    return source_of(provider_name(name), adjusted)


def provider_name(name: str | None) -> str:
    wanted = name or Variable.get(own(PROVIDER_VARIABLE), default="sample")
    if not isinstance(wanted, str) or wanted not in PROVIDERS:
        where = "The parameter 'provider'" if name else f"The Prefect variable '{PROVIDER_VARIABLE}'"
        now = "Take one of them." if name else "Set it under `variables` in the environment's file and deploy."
        raise ValueError(f"{where} is {wanted!r}; known providers: {', '.join(PROVIDERS)}. {now}")
    return wanted


def _sample() -> Provider:
    return sample


def _yahoo() -> Provider:
    return yahoo.Yahoo(turn=turn_to_ask(yahoo.LIMIT), base=os.environ.get(YAHOO_VARIABLE))


def _polygon() -> Provider:
    key = secret(POLYGON_SECRET)
    if not key:
        raise ValueError(
            f"The provider 'polygon' needs a key, and there is no Secret block '{POLYGON_SECRET}'. "
            "Set it under `secrets` in the environment's file and deploy."
        )
    base = os.environ.get(POLYGON_VARIABLE, polygon.BASE)
    return polygon.Polygon(key, turn=turn_to_ask(polygon.LIMIT), base=base)


PROVIDERS: dict[str, Callable[[], Provider]] = {"sample": _sample, "yahoo": _yahoo, "polygon": _polygon}


def warehouse_url() -> str:
    """From the Secret block, else the process's environment, else a SQLite file in Prefect's home.

    In Prefect's home because a run's own folder is a clone that is thrown away after it.
    """
    told = secret(WAREHOUSE_SECRET) or os.environ.get(WAREHOUSE_VARIABLE)
    if told and lasts_only_for_the_run(told):
        raise ValueError(
            f"The warehouse's URL is for a SQLite file in the run's own folder, or for none: what is stored would be gone after the run. "
            f"Give the whole path in the Secret block '{WAREHOUSE_SECRET}' or in {WAREHOUSE_VARIABLE}: sqlite:////data/warehouse.db has four slashes."
        )
    return told or f"sqlite:///{get_current_settings().home / 'warehouse.db'}"


def archive(url: str | None = None) -> Place:
    """Where archived bars are kept: at this URL, else where the Prefect variable says, else beside a SQLite warehouse."""
    return _place(url, ARCHIVE_VARIABLE, "archive")


def backups(url: str | None = None) -> Place:
    """Where backups are kept: at this URL, else where the Prefect variable says, else beside a SQLite warehouse."""
    return _place(url, BACKUP_VARIABLE, "backups")


def _place(url: str | None, variable: str, folder: str) -> Place:
    """In Prefect's home only with a warehouse that is a file: that one is on the same disk, by default in the same folder."""
    told = url or Variable.get(own(variable), default=None)
    if told is not None and not isinstance(told, str):
        raise ValueError(f"The Prefect variable '{variable}' is {told!r}: expected a folder or s3://bucket/prefix.")
    if not told and not warehouse_url().startswith("sqlite"):
        raise ValueError(
            f"The warehouse is on a server, and nobody said where its {folder} should be kept: a worker's own folder may be gone "
            f"tomorrow. Give the parameter 'url', or set '{variable}' under `variables` in the environment's file and deploy."
        )
    return Place(told or str(get_current_settings().home / folder), _storage_options())


def _storage_options() -> dict[str, Any]:
    """What S3 needs that the usual AWS variables don't say, from a Secret block that holds JSON."""
    text = secret(STORAGE_SECRET)
    if not text:
        return {}
    try:
        options = json.loads(text)
    except ValueError:  # its message would show the text
        options = None
    if not isinstance(options, dict):
        raise ValueError(
            f"The Secret block '{STORAGE_SECRET}' is no JSON object: expected something like "
            '{"endpoint_url": "https://s3.example", "key": "...", "secret": "..."}.'
        ) from None
    return options


def turn_to_write() -> AbstractContextManager[None]:
    """Wait for a slot of the global concurrency limit: so many runs may write much to the warehouse at a time.

    For what writes all that it has at once. A load that waits for its provider most of the time takes no turn: it would
    keep others waiting for hours, and each of its own transactions is over in an instant.
    """
    return concurrency(own(WRITE_LIMIT), lease_duration=SECONDS_TO_GIVE_UP_A_TURN)


def turn_to_ask(limit: str) -> Turn:
    """Wait for a slot of the global concurrency limit: so many requests may be made in a while, by all runs together.

    Where the limit does not exist nobody waits: an environment need not declare one, and what a provider then refuses
    as too much is tried again. Prefect warns of it in the run's log.
    """
    return partial(rate_limit, own(limit))


def secret(name: str) -> str | None:
    """The text of the Secret block; None where there is none."""
    try:
        block = Secret.load(own(name))
    except ValueError as error:
        if isinstance(error.__cause__, ObjectNotFound):
            return None
        raise
    # `get` would make JSON's values of a text: a number of the key 1e5.
    value = block.value.get_secret_value()  # type: ignore[union-attr]  # in a flow that is not async, load answers at once
    return value if isinstance(value, str) else json.dumps(value)
