"""The SDK's clients against real sidecars."""

import asyncio
import os
import re
import subprocess
import sys
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from partywall.client import Partywall
from partywall.errors import (
    Conflict,
    Forbidden,
    InvalidRequest,
    NotFound,
    SidecarUnavailable,
    Unauthenticated,
    UnknownLimit,
    UnknownTenant,
)
from partywall.records import Check, TenantRecord
from partywall.sync import SyncPartywall
from tests.acceptance.asking import fresh_tenant, new_token, until
from tests.conftest import SidecarFactory
from tests.support.processes import fixed_port
from tests.support.sidecar import START_SECONDS, Sidecar

PATIENT_SECONDS = 30.0
"""A deadline that a busy machine does not miss."""


@pytest.fixture
async def pw(asked_sidecar: Sidecar) -> AsyncIterator[Partywall]:
    """A client with a host app's token."""
    async with asked_sidecar.client() as admin:
        token = (await new_token(admin, "host"))["token"]
    async with client(asked_sidecar, token) as one:
        yield one


def client(sidecar: Sidecar, token: str | None = None) -> Partywall:
    return Partywall(sidecar.url, token or sidecar.admin_token, deadline=PATIENT_SECONDS)


async def test_a_tenant_is_admitted_up_to_its_tiers_limit_and_then_denied(pw: Partywall) -> None:
    acme = fresh_tenant()
    await pw.put_tenant(acme, tier="free")
    decisions = [await pw.check(acme, cost=cost) for cost in (3, 2, 1, 1)]
    assert [decision.allowed for decision in decisions] == [True, True, False, False]
    assert not any(decision.degraded for decision in decisions)
    denial = decisions[-1]
    assert (denial.tenant, denial.tier, denial.reason) == (acme, "free", "limit-exceeded")
    assert 50 < (denial.retry_after or 0) <= 63
    assert [(window.quota, window.window) for window in denial.windows] == [(5, 60)]


async def test_a_dry_run_charges_nothing(pw: Partywall) -> None:
    acme = fresh_tenant()
    await pw.put_tenant(acme, tier="free")
    for _ in range(10):
        assert (await pw.check(acme, cost=5, dry_run=True)).remaining == 0
    assert (await pw.check(acme, cost=5)).allowed
    assert not await pw.check(acme, dry_run=True)


async def test_unknown_tenants_and_limits_are_errors_whoever_answers(pw: Partywall) -> None:
    acme = fresh_tenant()
    await pw.put_tenant(acme, tier="free")
    for dry_run in (False, True):
        with pytest.raises(UnknownTenant, match=r"no tenant .* is registered"):
            await pw.check(fresh_tenant(), dry_run=dry_run)
        with pytest.raises(UnknownLimit, match="'nope'"):
            await pw.check(acme, "nope", dry_run=dry_run)
    with pytest.raises(UnknownTenant):
        await pw.get_tenant(fresh_tenant())


async def test_many_checks_are_answered_in_order(pw: Partywall) -> None:
    acme, nobody = fresh_tenant(), fresh_tenant()
    await pw.put_tenant(acme, tier="free")
    answers = await pw.check_many(
        [(acme, "requests", 4), (nobody,), (acme, "nope"), Check(acme, dry_run=True), (acme,)]
    )
    assert [(it.allowed, it.reason) for it in answers] == [
        (True, None),
        (False, "unknown-tenant"),
        (False, "unknown-limit"),
        (True, None),
        (True, None),
    ]
    assert len(await pw.check_many([(nobody,)] * 1000)) == 1000


async def test_tenants_are_registered_changed_and_found_by_their_domain(pw: Partywall) -> None:
    acme = fresh_tenant()
    before = datetime.now(UTC)
    made = await pw.put_tenant(acme, tier="pro", name="Acme Ltd", domains=[f"{acme}.EXAMPLE"])
    assert made == await pw.get_tenant(acme)
    assert (made.id, made.name, made.tier, made.status) == (acme, "Acme Ltd", "pro", "active")
    assert (made.domains, made.features) == ((f"{acme}.example",), ("advanced-analytics",))
    assert abs((made.created_at - before).total_seconds()) < 60
    assert await pw.tenant_of_domain(f"{acme}.example") == acme
    assert await pw.tenant_of_domain(f"not-{acme}.example") is None
    changed = await pw.put_tenant(acme, tier="free", status="suspended")
    assert (changed.tier, changed.status, changed.name) == ("free", "suspended", "Acme Ltd")


async def test_what_the_sidecar_refuses_says_why(pw: Partywall) -> None:
    acme, other = fresh_tenant(), fresh_tenant()
    await pw.put_tenant(acme, tier="free", domains=[f"{acme}.example"])
    with pytest.raises(Conflict):
        await pw.put_tenant(other, tier="free", domains=[f"{acme}.example"])
    with pytest.raises(InvalidRequest, match="expected one of free, pro, enterprise") as raised:
        await pw.put_tenant(other, tier="gold")
    assert [field for field, _ in raised.value.errors] == ["tier"]
    with pytest.raises(InvalidRequest, match="domain"):
        await pw.tenant_of_domain("no host name!")
    assert issubclass(UnknownTenant, NotFound)


async def test_a_tenants_own_token_may_look_at_that_tenant_alone(
    asked_sidecar: Sidecar, pw: Partywall
) -> None:
    acme, other = fresh_tenant(), fresh_tenant()
    for tenant in (acme, other):
        await pw.put_tenant(tenant, tier="free")
    async with asked_sidecar.client() as admin:
        token = (await new_token(admin, f"tenant:{acme}"))["token"]
    async with client(asked_sidecar, token) as own:
        assert (await own.get_tenant(acme)).id == acme
        assert await own.check(acme, dry_run=True)
        for refused in (
            own.get_tenant(other),
            own.check(other, dry_run=True),
            own.check_many([(acme,)]),
            own.put_tenant(acme, tier="pro"),
        ):
            with pytest.raises(Forbidden):
                await refused


async def test_a_revoked_token_is_none_any_more(asked_sidecar: Sidecar) -> None:
    async with asked_sidecar.client() as admin:
        made = await new_token(admin, "host")
        async with client(asked_sidecar, made["token"]) as pw:
            await pw.put_tenant(fresh_tenant(), tier="free")
            assert (await admin.delete(f"/v1/tokens/{made['id']}")).status_code == 204
            for refused in (pw.check_many([("acme",)]), pw.get_tenant("acme")):
                with pytest.raises(Unauthenticated, match="partywall tokens create"):
                    await refused


async def test_url_and_token_come_from_the_environment(
    asked_sidecar: Sidecar, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PARTYWALL_SIDECAR_URL", asked_sidecar.url)
    monkeypatch.setenv("PARTYWALL_TOKEN", asked_sidecar.admin_token)
    acme = fresh_tenant()
    async with Partywall() as pw:
        assert (await pw.put_tenant(acme, tier="free")).id == acme


def test_the_synchronous_client_is_denied_at_the_same_limit(asked_sidecar: Sidecar) -> None:
    acme = fresh_tenant()
    with SyncPartywall(
        asked_sidecar.url, asked_sidecar.admin_token, deadline=PATIENT_SECONDS
    ) as pw:
        pw.put_tenant(acme, tier="free")
        assert [pw.check(acme, cost=cost).allowed for cost in (3, 2, 1)] == [True, True, False]
        with pytest.raises(UnknownTenant):
            pw.check(fresh_tenant())


@pytest.mark.parametrize("form", ["unix://{}", "unix:{}"])
async def test_a_sidecar_is_reached_through_its_unix_socket(
    sidecar: SidecarFactory, server_dir: Path, form: str
) -> None:
    path = server_dir / "partywall.sock"
    one = sidecar(env={"PARTYWALL_HOST": f"unix:{path}"}, start=False)
    one.start(ready=False)
    acme = fresh_tenant()
    async with Partywall(form.format(path), one.admin_token, deadline=PATIENT_SECONDS) as pw:

        async def registered() -> TenantRecord:
            return await pw.put_tenant(acme, tier="free")

        await until(registered, SidecarUnavailable, seconds=START_SECONDS)
        assert [window.quota for window in (await pw.check(acme)).windows] == [100]
        one.kill()
        with pytest.raises(SidecarUnavailable, match=f"at {form.format(path)}: nobody answers"):
            await pw.get_tenant(acme)


async def test_a_sidecar_that_restarts_between_calls_gives_no_error(
    sidecar: SidecarFactory,
) -> None:
    one = sidecar(env={"PARTYWALL_PORT": str(fixed_port())})
    acme = fresh_tenant()
    async with client(one) as pw:
        await pw.put_tenant(acme, tier="free")
        assert not (await pw.check(acme)).degraded
        one.stop()
        one.start()
        # Nothing here may be asked twice, so nothing but a fresh connection helps.
        assert (await pw.check_many([(acme,)]))[0].allowed
        assert not (await pw.check(acme, cost=2)).degraded
        assert (await pw.get_tenant(acme)).id == acme


async def test_without_a_sidecar_calls_fail_and_checks_are_decided_here(
    sidecar: SidecarFactory,
) -> None:
    one = sidecar(env={"PARTYWALL_PORT": str(fixed_port())})
    acme = fresh_tenant()
    async with client(one) as pw:
        await pw.put_tenant(acme, tier="free")
        assert not (await pw.check(acme)).degraded
        one.kill()
        for call in (pw.get_tenant(acme), pw.check_many([(acme,)])):
            with pytest.raises(SidecarUnavailable):
                await call
        decision = await pw.check(fresh_tenant())  # of whom nothing is in hand
        assert (decision.allowed, decision.degraded) == (True, True)

        one.start()

        async def exact() -> bool:
            return not (await pw.check(acme)).degraded

        await until(exact)
        assert (await pw.get_tenant(acme)).id == acme


async def test_checks_without_a_sidecar_are_refused_where_the_app_says_closed(
    sidecar: SidecarFactory,
) -> None:
    one = sidecar()
    async with Partywall(one.url, one.admin_token, on_outage="closed") as pw:
        one.kill()
        with pytest.raises(SidecarUnavailable, match="cannot be decided now"):
            await pw.check("acme")


def test_every_snippet_of_the_docs_runs_as_it_stands(sidecar: SidecarFactory) -> None:
    one = sidecar()
    page = (Path(__file__).parents[2] / "docs" / "client.md").read_text()
    snippets = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    assert len(snippets) > 3
    env = {"PARTYWALL_SIDECAR_URL": one.url, "PARTYWALL_TOKEN": one.admin_token}
    for snippet in snippets:
        ran = subprocess.run(
            [sys.executable, "-W", "error", "-c", snippet],
            env={**os.environ, **env},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert ran.returncode == 0, f"{snippet}\n{ran.stderr}"  # stderr may have log lines
        for line in snippet.splitlines():
            code, _, promised = line.partition("  # ")
            if "print(" in code and promised:
                assert promised in ran.stdout.splitlines(), snippet


async def test_many_tasks_share_one_client(pw: Partywall) -> None:
    tenants = [fresh_tenant() for _ in range(20)]
    await asyncio.gather(*(pw.put_tenant(tenant, tier="free") for tenant in tenants))
    answers = await asyncio.gather(*(pw.check(tenants[n % 20]) for n in range(200)))
    admitted = [answer.tenant for answer in answers if answer.allowed]
    assert sorted(admitted) == sorted(tenants * 5)
