"""Overrides, on a real PostgreSQL."""

from datetime import UTC, datetime, timedelta

import pytest

from partywall_service.ledger import Ledger, TenantMissing


@pytest.fixture(autouse=True)
async def tenants(ledger: Ledger) -> None:
    for tenant in ("acme", "umbrella"):
        await ledger.put_tenant(tenant, tier="free", actor="test")


async def put(ledger: Ledger, kind: str, name: str, **said: object) -> None:
    given = {"value": 1, "expires_at": None, "reason": "", "author": "test", **said}
    await ledger.put_override("acme", kind, name, **given)  # type: ignore[arg-type] # as given


async def names(ledger: Ledger) -> list[tuple[str, str]]:
    return [(found.kind, found.name) for found in await ledger.list_overrides("acme", limit=10)]


@pytest.mark.parametrize("value", ["500/minute", "unlimited", -1, 2**53 - 1])
async def test_a_value_comes_back_as_it_was_given(ledger: Ledger, value: str | int) -> None:
    until = datetime(2999, 1, 2, 3, 4, 5, 678901, UTC)
    record = await ledger.put_override(
        "acme", "limits", "requests", value, expires_at=until, reason="peak", author="ops"
    )
    assert (record.value, record.expires_at) == (value, until)
    assert (record.reason, record.author) == ("peak", "ops")
    assert await ledger.list_overrides("acme", limit=10) == [record]
    assert (await ledger.load_many(["acme"]))["acme"][1] == (record,)


async def test_a_second_one_of_the_same_name_replaces_the_first(ledger: Ledger) -> None:
    await put(ledger, "limits", "requests", value=1, reason="first")
    first = (await ledger.list_overrides("acme", limit=10))[0]
    await put(ledger, "limits", "requests", value=2, reason="second")
    (second,) = await ledger.list_overrides("acme", limit=10)
    assert (second.value, second.reason) == (2, "second")
    assert second.created_at > first.created_at


async def test_it_belongs_to_one_tenant(ledger: Ledger) -> None:
    await put(ledger, "limits", "requests")
    assert await ledger.list_overrides("umbrella", limit=10) == []
    assert not await ledger.delete_override("umbrella", "limits", "requests", actor="test")


async def test_one_that_has_expired_is_gone(ledger: Ledger) -> None:
    await put(ledger, "limits", "requests", expires_at=datetime.now(UTC) - timedelta(seconds=1))
    assert await names(ledger) == []
    assert not await ledger.delete_override("acme", "limits", "requests", actor="test")
    await put(ledger, "limits", "requests")
    assert await names(ledger) == [("limits", "requests")]


async def test_pages_follow_kind_and_name(ledger: Ledger) -> None:
    for kind, name in (("quotas", "a"), ("limits", "b"), ("jobs", "rate"), ("limits", "a")):
        await put(ledger, kind, name)
    first = await ledger.list_overrides("acme", limit=3)
    assert [(o.kind, o.name) for o in first] == [("jobs", "rate"), ("limits", "a"), ("limits", "b")]
    rest = await ledger.list_overrides("acme", after=("limits", "b"), limit=3)
    assert [(o.kind, o.name) for o in rest] == [("quotas", "a")]


async def test_setting_and_deleting_are_recorded(ledger: Ledger) -> None:
    await put(ledger, "limits", "requests", value="5/minute", reason="peak", author="ops")
    assert await ledger.delete_override("acme", "limits", "requests", actor="support")
    assert not await ledger.delete_override("acme", "limits", "requests", actor="support")
    deleted, was_set = (await ledger.list_audit(tenant="acme", limit=10))[:2]
    assert (deleted.action, deleted.actor) == ("override.deleted", "support")
    assert (was_set.action, was_set.actor) == ("override.set", "ops")
    assert was_set.detail == {
        "kind": "limits",
        "name": "requests",
        "value": "5/minute",
        "expires_at": None,
        "reason": "peak",
    }


async def test_a_tenant_nobody_registered_gets_none(ledger: Ledger) -> None:
    with pytest.raises(TenantMissing, match="nobody"):
        await ledger.put_override(
            "nobody", "limits", "requests", 1, expires_at=None, reason="", author="test"
        )
    assert await ledger.list_audit(tenant="nobody", limit=10) == []


async def test_what_makes_no_sense_is_refused(ledger: Ledger) -> None:
    with pytest.raises(ValueError, match="limits"):
        await put(ledger, "wishes", "requests")
    with pytest.raises(ValueError, match="UTC offset"):
        await put(ledger, "limits", "requests", expires_at=datetime(2999, 1, 1))  # noqa: DTZ001 - the fault under test
