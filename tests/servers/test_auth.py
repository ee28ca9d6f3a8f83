"""Who is calling, on a real PostgreSQL: right, remembered, forgotten in time, and bounded."""

import asyncio
from collections.abc import Sequence

import pytest
from sqlalchemy import event
from sqlalchemy.ext.asyncio import AsyncEngine

from partywall_service.api import auth
from partywall_service.api.auth import Authenticator, Principal
from partywall_service.api.problems import Problem
from partywall_service.embedded import PostgresServer
from partywall_service.ledger import Ledger, TokenRecord, create_ledger_engine
from partywall_service.ledger.migrations import upgrade
from partywall_service.ledger.token_text import TokenText

ADMIN = "the configured töken"


class Clock:
    """Monotonic seconds that pass when told to."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def authenticator(ledger: Ledger, clock: Clock) -> Authenticator:
    return Authenticator(ledger, ADMIN, clock)


@pytest.fixture
def queries(ledger_engine: AsyncEngine) -> list[str]:
    """The statements PostgreSQL was asked since the test cleared this."""
    asked: list[str] = []

    @event.listens_for(ledger_engine.sync_engine, "before_cursor_execute")
    def note(*arguments: object) -> None:
        asked.append(str(arguments[2]))

    return asked


async def refused(authenticator: Authenticator, presented: str | None) -> str:
    with pytest.raises(Problem) as problem:
        await authenticator.authenticate(presented)
    return problem.value.slug


def wrong(text: str) -> str:
    """The same token with another secret."""
    return text[:16] + ("A" if text[16] != "A" else "B") + text[17:]


async def test_the_configured_token_is_the_admins_and_asks_nobody(
    authenticator: Authenticator, queries: list[str]
) -> None:
    assert authenticator.known(ADMIN) == Principal("admin", None, "admin")
    assert await authenticator.authenticate(ADMIN) == Principal("admin", None, "admin")
    assert queries == []


@pytest.mark.parametrize(
    ("scope", "kind", "tenant"),
    [("admin", "admin", None), ("host", "host", None), ("tenant:acme", "tenant", "acme")],
)
async def test_a_token_gives_its_scope_and_the_audit_logs_name_for_it(
    ledger: Ledger, authenticator: Authenticator, scope: str, kind: str, tenant: str | None
) -> None:
    record, text = await ledger.create_token(scope, "ci", actor="test")
    assert authenticator.known(text) is None
    principal = await authenticator.authenticate(text)
    assert (principal.scope, principal.tenant) == (kind, tenant)
    assert principal.actor == f"ci ({record.id})"


async def test_a_token_seen_once_is_known_without_a_query(
    ledger: Ledger, authenticator: Authenticator, queries: list[str]
) -> None:
    _, text = await ledger.create_token("host", "ci", actor="test")
    principal = await authenticator.authenticate(text)
    queries.clear()
    assert authenticator.known(text) is principal
    assert await authenticator.authenticate(text) is principal
    assert queries == []


@pytest.mark.parametrize(
    "presented",
    [None, "", "nonsense", ADMIN + "x", ADMIN[:-1], "pw_\0", "\ud800", "é" * 60, "pw_" + "x" * 56],
)
async def test_what_cannot_be_a_token_is_refused_without_a_query(
    authenticator: Authenticator, queries: list[str], presented: str | None
) -> None:
    assert await refused(authenticator, presented) == "unauthenticated"
    assert queries == []


async def test_a_wrong_secret_is_refused_also_once_the_right_one_is_known(
    ledger: Ledger, authenticator: Authenticator, queries: list[str]
) -> None:
    _, text = await ledger.create_token("host", "ci", actor="test")
    assert await refused(authenticator, wrong(text)) == "unauthenticated"
    assert authenticator.known(wrong(text)) is None
    await authenticator.authenticate(text)
    queries.clear()
    assert await refused(authenticator, wrong(text)) == "unauthenticated"
    assert authenticator.known(text) is not None
    assert queries == []


async def test_an_unknown_id_is_asked_for_again_only_after_a_while(
    authenticator: Authenticator, queries: list[str], clock: Clock
) -> None:
    invented = str(TokenText.mint())
    for _ in range(3):
        assert await refused(authenticator, invented) == "unauthenticated"
    assert len(queries) == 1
    clock.now += auth.UNKNOWN_FOR
    await refused(authenticator, invented)
    assert len(queries) == 2


async def test_a_flood_of_invented_tokens_is_one_query_at_a_time(
    ledger: Ledger, authenticator: Authenticator, queries: list[str]
) -> None:
    _, real = await ledger.create_token("host", "ci", actor="test")
    queries.clear()
    answers = await asyncio.gather(
        *(authenticator.authenticate(str(TokenText.mint())) for _ in range(900)),
        authenticator.authenticate(real),
        return_exceptions=True,
    )
    assert isinstance(answers[-1], Principal)
    assert all(isinstance(answer, Problem) for answer in answers[:-1])
    assert len(queries) == 2


async def test_memory_is_bounded_and_good_tokens_outlive_a_flood_of_bad_ones(
    ledger: Ledger, authenticator: Authenticator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(auth, "REMEMBERED", 3)
    texts = [(await ledger.create_token("host", "ci", actor="test"))[1] for _ in range(5)]
    for text in texts:
        await authenticator.authenticate(text)
    assert [authenticator.known(text) is not None for text in texts] == [False] * 2 + [True] * 3
    for _ in range(10):
        await refused(authenticator, str(TokenText.mint()))
    assert [authenticator.known(text) is not None for text in texts] == [False] * 2 + [True] * 3
    sizes = (authenticator._known, authenticator._principals, authenticator._unknown)
    assert [len(one) for one in sizes] == [3, 3, 3]
    await authenticator.authenticate(texts[0])


async def test_a_revoked_token_is_refused_once_it_is_forgotten(
    ledger: Ledger, authenticator: Authenticator
) -> None:
    record, text = await ledger.create_token("host", "ci", actor="test")
    await authenticator.authenticate(text)
    await ledger.revoke_token(record.id, actor="test")
    authenticator.forget(record.id)
    assert authenticator.known(text) is None
    assert await refused(authenticator, text) == "unauthenticated"


async def test_a_token_refused_before_it_was_made_is_accepted_once_it_is(
    ledger: Ledger, authenticator: Authenticator, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = TokenText.mint()
    assert await refused(authenticator, str(text)) == "unauthenticated"
    monkeypatch.setattr(TokenText, "mint", classmethod(lambda cls: text))
    await ledger.create_token("host", "ci", actor="test")
    authenticator.forget(text.id)
    assert (await authenticator.authenticate(str(text))).scope == "host"


class SlowLedger(Ledger):
    """Its lookups have read what they will answer, and wait to be let go."""

    def __init__(self, engine: AsyncEngine) -> None:
        super().__init__(engine)
        self.read = asyncio.Event()
        self.go = asyncio.Event()

    async def find_tokens(self, ids: Sequence[str]) -> dict[str, tuple[TokenRecord, bytes]]:
        found = await super().find_tokens(ids)
        self.read.set()
        await self.go.wait()
        return found


@pytest.mark.parametrize("how", ["forget", "clear"])
async def test_a_lookup_overtaken_by_a_change_is_not_remembered(
    ledger_engine: AsyncEngine, how: str
) -> None:
    """Read before the revocation, answered after it was heard: it must not stay for good."""
    ledger = SlowLedger(ledger_engine)
    authenticator = Authenticator(ledger, ADMIN)
    record, text = await ledger.create_token("host", "ci", actor="test")
    early = asyncio.create_task(authenticator.authenticate(text))
    await ledger.read.wait()
    await ledger.revoke_token(record.id, actor="test")
    if how == "forget":
        authenticator.forget(record.id)
    else:
        authenticator.clear()
    late = asyncio.create_task(authenticator.authenticate(text))
    await asyncio.sleep(0)
    ledger.go.set()
    await early
    with pytest.raises(Problem):
        await late
    assert authenticator.known(text) is None


async def test_a_caller_that_hangs_up_takes_nobody_with_it(ledger_engine: AsyncEngine) -> None:
    ledger = SlowLedger(ledger_engine)
    authenticator = Authenticator(ledger, ADMIN)
    _, text = await ledger.create_token("host", "ci", actor="test")
    first, second = (asyncio.create_task(authenticator.authenticate(text)) for _ in range(2))
    await ledger.read.wait()
    first.cancel()
    ledger.go.set()
    assert (await second).scope == "host"


async def test_while_postgresql_is_away_only_known_tokens_are_served(
    own_postgres: PostgresServer, clock: Clock
) -> None:
    upgrade(own_postgres.url)
    engine = create_ledger_engine(own_postgres.url)
    ledger = Ledger(engine)
    authenticator = Authenticator(ledger, ADMIN, clock)
    _, known = await ledger.create_token("host", "known", actor="test")
    _, new = await ledger.create_token("host", "new", actor="test")
    await authenticator.authenticate(known)
    own_postgres.stop()

    assert authenticator.known(known) is not None
    assert authenticator.known(ADMIN) is not None
    assert await refused(authenticator, new) == "unavailable"
    assert await refused(authenticator, "nonsense") == "unauthenticated"
    authenticator.clear()  # the listener came back for a moment, and PostgreSQL went again
    assert authenticator.known(known) is None
    assert (await authenticator.authenticate(known)).scope == "host"
    assert await refused(authenticator, wrong(known)) == "unauthenticated"

    own_postgres.start()
    clock.now += auth.COOL_DOWN
    assert (await authenticator.authenticate(new)).scope == "host"
    assert authenticator.known(new) is not None
    await authenticator.authenticate(known)
    assert authenticator.known(known) is not None
    await engine.dispose()


async def test_an_outage_is_tried_again_only_after_the_cool_down(
    ledger_engine: AsyncEngine, authenticator: Authenticator, clock: Clock, queries: list[str]
) -> None:
    async with ledger_engine.begin() as connection:
        await connection.exec_driver_sql("ALTER TABLE tokens RENAME TO away")
    queries.clear()
    for _ in range(3):
        assert await refused(authenticator, str(TokenText.mint())) == "unavailable"
    assert len(queries) == 1
    clock.now += auth.COOL_DOWN
    assert await refused(authenticator, str(TokenText.mint())) == "unavailable"
    assert len(queries) == 2
