"""Quotas by the client, against the fake sidecar: what is asked, answered and raised."""

from collections.abc import Awaitable, Callable
from typing import Any

import httpx
import pytest

from partywall import (
    Conflict,
    InvalidRequest,
    NotFound,
    Partywall,
    QuotaExceeded,
    SidecarUnavailable,
    UnknownResource,
    UnknownTenant,
)
from partywall.errors import Denied
from partywall.testing import FakeSidecar
from partywall.transport import Backoff
from tests.unit.sdk.losing import Losing
from tests.unit.sdk.quota_tiers import TIERS

# Consuming and releasing


async def test_a_consume_is_allowed_up_to_the_limit_and_then_raises() -> None:
    async with FakeSidecar(TIERS), Partywall() as pw:
        outcome = await pw.consume("acme", users=4, storage=1000)
        assert outcome
        assert [(it.resource, it.used, it.remaining) for it in outcome.quotas] == [
            ("users", 4, 1),
            ("storage", 1000, 24),
        ]
        with pytest.raises(QuotaExceeded) as raised:
            await pw.consume("acme", users=2, storage=1)
    error = raised.value
    assert isinstance(error, Denied)
    assert (error.tenant, error.denied, error.items) == (
        "acme",
        ("users",),
        {"users": 2, "storage": 1},
    )
    assert error.outcome.find("users") == error.outcome.quotas[0]
    assert str(error) == "tenant 'acme' has no room for 2 of 'users': 4 of 5 used"


async def test_a_denial_says_what_is_reserved_and_each_resource_without_room() -> None:
    async with FakeSidecar(TIERS), Partywall() as pw:
        await pw.reserve("acme", users=5)
        with pytest.raises(QuotaExceeded) as raised:
            await pw.consume("acme", {"users": 1, "api-keys": 3})
    assert str(raised.value) == (
        "tenant 'acme' has no room for 1 of 'users': 0 of 5 used and 5 reserved; "
        "3 of 'api-keys': 0 of 2 used"
    )


async def test_a_denial_is_a_value_where_it_is_only_tried_and_changes_nothing() -> None:
    async with FakeSidecar(TIERS), Partywall() as pw:
        assert await pw.try_consume("acme", users=5)
        outcome = await pw.try_consume("acme", users=1, storage=1)
        assert not outcome
        assert (outcome.denied, outcome.tenant) == (("users",), "acme")
        assert (await pw.quota("acme", "storage")).used == 0


async def test_resources_are_named_by_keyword_or_in_a_mapping_or_both() -> None:
    async with FakeSidecar(TIERS), Partywall() as pw:
        outcome = await pw.consume("acme", {"api-keys": 1, "ttl": 1}, users=1)
        assert [it.resource for it in outcome.quotas] == ["api-keys", "ttl", "users"]


async def test_what_was_consumed_is_released_but_never_below_zero() -> None:
    async with FakeSidecar(TIERS), Partywall() as pw:
        await pw.consume("acme", users=3)
        outcome = await pw.release("acme", users=2)
        assert outcome.quotas[0].used == 1
        with pytest.raises(Conflict, match="at most the 1 of 'users'"):
            await pw.release("acme", users=2)
        assert (await pw.quota("acme", "users")).used == 1


async def test_nobodys_tenant_and_nobodys_resource_are_errors_of_their_own() -> None:
    async with FakeSidecar(TIERS, default_tier=None) as sidecar, Partywall() as pw:
        with pytest.raises(UnknownTenant):
            await pw.consume("acme", users=1)
        sidecar.tenant("acme", tier="free")
        with pytest.raises(UnknownResource, match="'seats'"):
            await pw.consume("acme", seats=1)
        with pytest.raises(UnknownResource, match="'seats'"):
            await pw.quota("acme", "seats")


@pytest.mark.parametrize(
    ("given", "named", "field"),
    [
        (None, {}, "items"),
        ({}, {}, "items"),
        (5, {}, "items"),
        ({"a b": 1}, {}, "items"),
        (None, {"a b": 1}, "items"),
        ({1: 1}, {}, "items"),
        ({"users": 1}, {"users": 1}, "items.users"),
        (None, {"users": 0}, "items.users"),
        (None, {"users": -1}, "items.users"),
        (None, {"users": 1.0}, "items.users"),
        (None, {"users": True}, "items.users"),
        (None, {"users": "1"}, "items.users"),
        (None, {"users": 2**53}, "items.users"),
        (None, {"key": "abc"}, "items.key"),
    ],
)
async def test_items_that_can_be_none_are_refused_before_anything_is_sent(
    given: Any, named: Any, field: str
) -> None:
    async with Partywall("http://127.0.0.1:1", "t") as pw:
        for call in (pw.consume, pw.try_consume, pw.release):
            with pytest.raises(InvalidRequest) as raised:
                await call("acme", given, **named)
            assert [name for name, _ in raised.value.errors] == [field]
        with pytest.raises(InvalidRequest):
            pw.reserve("acme", given, **named)


async def test_other_arguments_that_can_be_none_are_refused_too() -> None:
    async with Partywall("http://127.0.0.1:1", "t") as pw:
        calls: list[tuple[Callable[[], Awaitable[Any]], str]] = [
            (lambda: pw.consume("a b", users=1), "tenant"),
            (lambda: pw.consume("acme", users=1, idempotency_key=""), "idempotency_key"),
            (lambda: pw.consume("acme", users=1, idempotency_key="a b"), "idempotency_key"),
            (lambda: pw.consume("acme", users=1, idempotency_key="ü"), "idempotency_key"),
            (lambda: pw.consume("acme", users=1, idempotency_key="k" * 256), "idempotency_key"),
            (lambda: pw.reserve("acme", users=1, ttl=0), "ttl"),
            (lambda: pw.reserve("acme", users=1, ttl=86401), "ttl"),
            (lambda: pw.set_quota("acme", "a b", 1), "resource"),
            (lambda: pw.set_quota("acme", "users", -1), "used"),
            (lambda: pw.quota("acme", ""), "resource"),
            (lambda: pw.quotas("a b"), "tenant"),
            (lambda: pw.preview("a b", "free"), "tenant"),
            (lambda: anext(pw.ledger("acme", "a b")), "resource"),
        ]
        for call, field in calls:
            with pytest.raises(InvalidRequest) as raised:
                await call()
            assert [name for name, _ in raised.value.errors] == [field]


# Repeating


async def test_a_repeated_key_is_answered_as_the_first_time_and_changes_nothing() -> None:
    async with FakeSidecar(TIERS) as sidecar, Partywall() as pw:
        first = await pw.consume("acme", users=3, idempotency_key="k")
        assert await pw.consume("acme", users=3, idempotency_key="k") == first
        assert await pw.consume("other", users=3, idempotency_key="k") != first
        denied = await pw.try_consume("acme", users=3, idempotency_key="d")
        await pw.release("acme", users=3)
        assert await pw.try_consume("acme", users=3, idempotency_key="d") == denied
        with pytest.raises(Conflict, match="used for another request"):
            await pw.consume("acme", users=2, idempotency_key="k")
        sidecar.advance(24 * 3600)
        assert await pw.consume("acme", users=2, idempotency_key="k")


@pytest.fixture
def losing(monkeypatch: pytest.MonkeyPatch) -> Losing:
    """A transport to a fake sidecar that loses answers; nothing waits before it tries again."""
    monkeypatch.setattr(Backoff, "delay", lambda self, failures: 0.0)
    with FakeSidecar(TIERS) as sidecar:
        return Losing(sidecar._line)


async def test_a_lost_answer_is_asked_for_again_and_nothing_is_done_twice(losing: Losing) -> None:
    async with Partywall("http://there", "t", transport=losing) as pw:
        assert (await pw.consume("acme", users=3)).quotas[0].used == 3
        assert (await pw.release("acme", users=1)).quotas[0].used == 2
        async with pw.reserve("acme", users=1):
            pass
        version = (await pw.quota("acme", "users")).version
        quota = await pw.set_quota("acme", "users", 3, if_version=version)
        assert (quota.used, quota.reserved) == (3, 0)
    assert losing.keys[0] == losing.keys[1] is not None
    assert len({key for key in losing.keys if key}) == 4


async def test_after_an_outage_the_caller_repeats_with_its_own_key() -> None:
    async with FakeSidecar(TIERS) as sidecar, Partywall() as pw:
        sidecar.fail()
        with pytest.raises(SidecarUnavailable):
            await pw.consume("acme", users=3, idempotency_key="k")
        sidecar.restore()
        assert (await pw.consume("acme", users=3, idempotency_key="k")).quotas[0].used == 3


# Reading and setting


async def test_quotas_are_read_with_all_that_is_known_of_them() -> None:
    async with FakeSidecar(TIERS) as sidecar, Partywall() as pw:
        await pw.consume("acme", users=4, emails=1)
        quotas = {quota.resource: quota for quota in await pw.quotas("acme")}
        assert list(quotas) == ["users", "storage", "api-keys", "ttl", "emails"]
        users, storage, emails = quotas["users"], quotas["storage"], quotas["emails"]
        assert (users.limit, users.used, users.remaining, users.version) == (5, 4, 1, 1)
        assert (users.period, users.resets_at, users.unit) == (None, None, "count")
        assert (users.crossed, users.crossed_at.timestamp()) == (80, sidecar.now)  # type: ignore[union-attr] # crossed
        assert (storage.unit, storage.limit, storage.crossed) == ("bytes", 1024, None)
        assert (emails.period, str(emails.resets_at)) == ("month", "2030-02-01 00:00:00+00:00")


async def test_a_level_is_set_unless_its_version_has_moved_on() -> None:
    async with FakeSidecar(TIERS), Partywall() as pw:
        before = await pw.quota("acme", "users")
        after = await pw.set_quota("acme", "users", 9, reason="counted", if_version=before.version)
        assert (after.used, after.remaining, after.version) == (9, 0, before.version + 1)
        with pytest.raises(Conflict, match="moved on"):
            await pw.set_quota("acme", "users", 1, if_version=before.version)
        assert (await pw.set_quota("acme", "users", 1)).used == 1


async def test_the_ledger_is_read_to_its_end_newest_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("partywall.quotas.methods.PAGE_SIZE", 3)
    async with FakeSidecar(TIERS), Partywall() as pw:
        await pw.consume("acme", users=2, emails=1, idempotency_key="mine")
        await pw.release("acme", users=1)
        await pw.set_quota("acme", "users", 4, reason="counted")
        for _ in range(4):
            await pw.consume("acme", emails=1)
        users = [entry async for entry in pw.ledger("acme", "users")]
        assert [(it.operation, it.delta, it.used, it.reason) for it in users] == [
            ("set", 3, 4, "counted"),
            ("release", -1, 1, None),
            ("consume", 2, 2, None),
        ]
        assert users[-1].idempotency_key == "mine"
        everything = [entry async for entry in pw.ledger("acme")]
        assert len(everything) == 8
        for quota in await pw.quotas("acme"):
            own = [entry.delta for entry in everything if entry.resource == quota.resource]
            assert sum(own) == quota.used
        assert [entry async for entry in pw.ledger("other")] == []
        with pytest.raises(UnknownResource):
            await anext(pw.ledger("acme", "seats"))


async def test_a_preview_names_what_a_tenant_has_too_much_of() -> None:
    async with FakeSidecar(TIERS) as sidecar, Partywall() as pw:
        sidecar.tenant("acme", tier="pro")
        await pw.consume("acme", users=7, storage=5000)
        preview = await pw.preview("acme", "free")
        assert (preview.tenant, preview.from_tier, preview.to_tier) == ("acme", "pro", "free")
        assert [(it.resource, it.used, it.limit, it.excess) for it in preview.over] == [
            ("users", 7, 5, 2),
            ("storage", 5000, 1024, 3976),
        ]
        with pytest.raises(InvalidRequest, match="expected one of free, pro"):
            await pw.preview("acme", "gold")
        sidecar.tenant("acme", tier="free")  # what exists is kept, and more is denied
        assert (await pw.quota("acme", "users")).used == 7
        with pytest.raises(QuotaExceeded):
            await pw.consume("acme", users=1)
        assert (await pw.release("acme", users=3)).quotas[0].remaining == 1


async def test_a_period_refills_on_its_boundary_and_not_before() -> None:
    async with FakeSidecar(TIERS) as sidecar, Partywall() as pw:
        await pw.consume("acme", emails=10)
        sidecar.advance(31 * 86400 - 1)
        assert not await pw.try_consume("acme", emails=1)
        sidecar.advance(1)
        assert (await pw.quota("acme", "emails")).used == 0
        assert (await pw.consume("acme", emails=10)).quotas[0].used == 10
        entries = [entry async for entry in pw.ledger("acme", "emails")]
        assert [(it.operation, it.delta) for it in entries] == [
            ("consume", 10),
            ("refill", -10),
            ("consume", 10),
        ]


# What is sent


async def test_what_is_sent_is_what_the_contract_says() -> None:
    sent: list[tuple[str, str, bytes]] = []

    def answer(request: httpx.Request) -> httpx.Response:
        sent.append((request.method, request.url.raw_path.decode(), request.content))
        problem = {"type": "urn:partywall:problem:not-found", "title": "Nothing here"}
        return httpx.Response(404, json=problem)

    calls: list[Callable[[Partywall], Awaitable[Any]]] = [
        lambda pw: pw.consume("acme", {"api-keys": 1}, users=2),
        lambda pw: pw.release("acme", users=1),
        lambda pw: pw.reserve("acme", users=1, ttl=5),
        lambda pw: pw.set_quota("acme", "api-keys", 1, reason="r", if_version=3),
        lambda pw: pw.quotas("acme"),
        lambda pw: pw.preview("acme", "free"),
        lambda pw: anext(pw.ledger("acme", "users")),
    ]
    pw = Partywall("http://there", "t", transport=httpx.MockTransport(answer))
    for call in calls:
        with pytest.raises(NotFound):
            await call(pw)
    assert sent == [
        ("POST", "/v1/tenants/acme/quotas/consume", b'{"items":{"api-keys":1,"users":2}}'),
        ("POST", "/v1/tenants/acme/quotas/release", b'{"items":{"users":1}}'),
        ("POST", "/v1/tenants/acme/quotas/reserve", b'{"items":{"users":1},"ttl":5}'),
        (
            "PUT",
            "/v1/tenants/acme/quotas/api-keys",
            b'{"used":1,"reason":"r","if_version":3}',
        ),
        ("GET", "/v1/tenants/acme/quotas", b""),
        ("GET", "/v1/tenants/acme/preview?tier=free", b""),
        ("GET", "/v1/tenants/acme/ledger?page_size=200&resource=users", b""),
    ]
