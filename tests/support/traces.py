"""Where an id is found in a Valkey and in a PostgreSQL: every key, every row, all of both."""

from typing import Any

import psycopg
import redis.asyncio
from psycopg import sql


async def keys_with(client: redis.asyncio.Redis, text: str, prefix: str) -> list[str]:
    """Keys of one installation, and arq's, whose name has `text`, or that hold it.

    Args:
        client: of the server, which other installations may share.
        text: what no other tenant of this one has in it.
        prefix: what the installation's keys have in them.
    """
    found = []
    async for name in client.scan_iter(count=10_000):
        key = name.decode()
        ours = prefix in key or key.startswith("arq:")
        if ours and (text in key or text in repr(await _content(client, name))):
            found.append(key)
    return sorted(found)


async def _content(client: redis.asyncio.Redis, name: bytes) -> Any:
    commands: Any = client  # redis-py's annotations are those of both its faces
    match await client.type(name):
        case b"string":
            return await client.get(name)
        case b"hash":
            return await commands.hgetall(name)
        case b"zset":
            return await client.zrange(name, 0, -1, withscores=True)
        case b"set":
            return await commands.smembers(name)
        case b"list":
            return await commands.lrange(name, 0, -1)
        case b"none":  # it ended meanwhile
            return None
    raise AssertionError(f"{name!r} is of a type that nobody looked into")


async def rows_with(database_url: str, text: str) -> dict[str, list[str]]:
    """Rows that have `text` in any column, by table; partitions by their own names."""
    found = {}
    async with await psycopg.AsyncConnection.connect(database_url) as connection:
        tables = await connection.execute(
            "SELECT c.oid::regclass::text FROM pg_class AS c"
            " WHERE relkind = 'r' AND relnamespace = current_schema()::regnamespace"
        )
        for (table,) in await tables.fetchall():
            query = sql.SQL("SELECT t::text FROM {} AS t WHERE t::text LIKE %s")
            rows = await connection.execute(query.format(sql.Identifier(table)), [f"%{text}%"])
            if lines := [row[0] for row in await rows.fetchall()]:
                found[table] = lines
    return found
