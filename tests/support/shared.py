"""Sidecars that several tests share, since each costs a second to start."""

import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from tests.acceptance.asking import PATIENT
from tests.support.run import TestRun
from tests.support.sidecar import ADMIN_TOKEN, Sidecar


@contextmanager
def shared_sidecars(
    run: TestRun, quotas: str, *, count: int = 1, arguments: Sequence[str] = ()
) -> Iterator[list[Sidecar]]:
    """Sidecars of one installation, on a database and a key prefix of their own.

    Each test brings tenants of its own.
    """
    database = run.create_database()
    prefix = f"t{uuid.uuid4().hex[:16]}"
    made: list[Sidecar] = []
    try:
        for _ in range(count):
            directory = run.fresh_dir("shared")
            (directory / "quotas.toml").write_text(quotas)
            env = {
                "PARTYWALL_ADMIN_TOKEN": ADMIN_TOKEN,
                "PARTYWALL_DATA_DIR": str(directory / "data"),
                "PARTYWALL_REDIS_URL": run.valkey.url,
                "PARTYWALL_DATABASE_URL": database,
                "PARTYWALL_KEY_PREFIX": prefix,
                **PATIENT,
            }
            made.append(Sidecar(directory, env, arguments))
            made[-1].start()
        yield made
    finally:
        for one in made:
            one.close()
        run.drop_database(database)
    for one in made:
        assert "Traceback" not in one.log, one.log
