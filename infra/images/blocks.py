"""Write Prefect's own block types into the database, once, before the APIs start.

Each API would do it when it starts; two that start at once, on an empty database, meet, and one ends with an error. So the
APIs are told not to (PREFECT_SERVER_REGISTER_BLOCKS_ON_START=false), and whoever migrates the database runs this after it.
"""

from __future__ import annotations

import asyncio

from prefect.server.database import provide_database_interface
from prefect.server.models.block_registration import run_block_auto_registration


async def register() -> None:
    session = await provide_database_interface().session()
    async with session:
        await run_block_auto_registration(session=session)


if __name__ == "__main__":
    asyncio.run(register())
