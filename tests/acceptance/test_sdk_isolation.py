"""Nobody gets in as somebody else: contexts, signed tokens, and tokens that may not check."""

import asyncio
import json
import time

import httpx
import jwt
import pytest

from partywall import Forbidden, Partywall, SidecarError, SyncPartywall, Unauthenticated
from tests.acceptance.asking import check, fresh_tenant, new_token, put_tenant, until
from tests.acceptance.conftest import HostsFactory
from tests.support.host import Host
from tests.support.http1 import Connection, get
from tests.support.sidecar import Sidecar
from tests.unit.sdk.tokens import SECRET, handmade, pem, rsa_key

TENANTS = 50
REQUESTS = 1000
PATIENT_SECONDS = 30.0
"""A deadline that a busy machine does not miss."""


async def test_a_thousand_requests_at_once_each_see_their_own_tenant(
    asked_sidecar: Sidecar, hosts: HostsFactory
) -> None:
    (host,) = hosts(asked_sidecar.url, deadline=PATIENT_SECONDS)
    tenants = [fresh_tenant() for _ in range(TENANTS)]
    facts = {  # each is asked for 40 times, and pro has 50 a minute
        tenant: ("enterprise" if number % 2 else "pro", ["advanced-analytics"])
        for number, tenant in enumerate(tenants)
    }
    async with asked_sidecar.client() as admin:
        for tenant, (tier, _) in facts.items():
            await put_tenant(admin, tenant, tier=tier)
    connections = [Connection(host.url) for _ in range(REQUESTS)]
    try:
        for turn in range(2):  # the second on the same connections, for other tenants

            async def ask(number: int, connection: Connection, turn: int = turn) -> None:
                tenant = tenants[(number + 7 * turn) % TENANTS]
                reply = await connection.exchange(get("/whose", {"X-Tenant-ID": tenant}))
                assert reply.status == 200
                tier, features = facts[tenant]
                expected = {"seen": [tenant] * 5, "tier": tier, "features": features}
                assert json.loads(reply.body) == expected

            await asyncio.gather(*(ask(*it) for it in enumerate(connections)))
            nobody = await asyncio.gather(
                *(connection.exchange(get("/nobody", {})) for connection in connections)
            )
            assert {reply.body for reply in nobody} == {b"null"}
    finally:
        for connection in connections:
            connection.close()


def signed(key: object = SECRET, algorithm: str = "HS256", **claims: object) -> str:
    """A token of acme's, good for a minute unless the claims say otherwise."""
    payload = {"tenant_id": "acme", "exp": time.time() + 60, **claims}
    return jwt.encode(payload, key, algorithm=algorithm)  # type: ignore[arg-type] # any key of PyJWT's


def refused_tokens() -> dict[str, str]:
    """What must not be taken from a client, where the app's key is a secret."""
    claims = {"tenant_id": "acme", "exp": time.time() + 60}
    head, payload, signature = signed().split(".")
    _, others, _ = signed(tenant_id="other").split(".")
    return {
        "forged": f"{head}.{others}.{signature}",
        "unsigned": f"{head}.{payload}.",
        "expired": signed(exp=time.time() - 1),
        "no algorithm": handmade({"alg": "none", "typ": "JWT"}, claims),
        "no algorithm, in capitals": handmade({"alg": "NONE"}, claims),
        "another key": signed(
            "another secret, long enough for HS256 and for HS512, as keys go, too"
        ),
        "another algorithm": signed(algorithm="HS512"),
        "a public key's": signed(rsa_key(), "RS256"),
    }


async def refusals(host: Host, tokens: dict[str, str]) -> None:
    """Each is answered 401, and no handler ran for it."""
    async with httpx.AsyncClient(
        verify=False, base_url=host.url, timeout=PATIENT_SECONDS
    ) as client:
        for kind, token in tokens.items():
            headers = {"Authorization": f"Bearer {token}", "X-Tenant-ID": "acme"}
            answer = await client.get("/", headers=headers)
            assert answer.status_code == 401, kind
            assert answer.headers["www-authenticate"].startswith("Bearer"), kind
            assert answer.json()["type"] == "urn:partywall:problem:invalid-credentials"
        assert host.admitted == {}
        # Nor does the header that says the same without a signature.
        assert (await client.get("/", headers={"X-Tenant-ID": "acme"})).status_code == 400


async def test_tokens_that_are_not_the_apps_own_are_refused(
    asked_sidecar: Sidecar, hosts: HostsFactory
) -> None:
    (host,) = hosts(asked_sidecar.url, deadline=PATIENT_SECONDS, jwt_key=SECRET)
    await refusals(host, refused_tokens())
    acme = fresh_tenant()
    async with asked_sidecar.client() as admin:
        await put_tenant(admin, acme)
    headers = {"Authorization": f"Bearer {signed(tenant_id=acme)}"}
    answer = await asyncio.to_thread(httpx.get, host.url, headers=headers, timeout=PATIENT_SECONDS)
    assert (answer.status_code, answer.json()["tenant"]) == (200, acme)


async def test_a_public_key_is_no_secret(asked_sidecar: Sidecar, hosts: HostsFactory) -> None:
    """Whoever knows the key that verifies must not be able to sign with it."""
    public = pem(rsa_key())
    (host,) = hosts(asked_sidecar.url, deadline=PATIENT_SECONDS, jwt_key=public)
    claims = {"tenant_id": "acme", "exp": time.time() + 60}
    await refusals(
        host,
        {
            "the public key as a secret": handmade({"alg": "HS256"}, claims, public.encode()),
            "another key": signed(rsa_key("another"), "RS256"),
            "no algorithm": handmade({"alg": "none"}, claims),
        },
    )
    acme = fresh_tenant()
    async with asked_sidecar.client() as admin:
        await put_tenant(admin, acme)
    token = signed(rsa_key(), "RS256", tenant_id=acme)
    headers = {"Authorization": f"Bearer {token}"}
    answer = await asyncio.to_thread(httpx.get, host.url, headers=headers, timeout=PATIENT_SECONDS)
    assert (answer.status_code, answer.json()["tenant"]) == (200, acme)


async def token_of(admin: httpx.AsyncClient, kind: str, tenant: str) -> str:
    """A token that may not check: a tenant's own, a revoked one, or none of the installation's."""
    if kind == "tenant":
        return str((await new_token(admin, f"tenant:{tenant}"))["token"])
    token = await new_token(admin, "host")
    assert (await admin.delete(f"/v1/tokens/{token['id']}")).status_code == 204
    return str(token["token"]) if kind == "revoked" else "pw_00000000_0000"


ERRORS: dict[str, type[SidecarError]] = {
    "tenant": Forbidden,
    "revoked": Unauthenticated,
    "made up": Unauthenticated,
}


@pytest.mark.parametrize("kind", ERRORS)
async def test_an_app_whose_token_may_not_check_goes_by_on_outage_and_says_so_once(
    asked_sidecar: Sidecar, hosts: HostsFactory, kind: str
) -> None:
    acme = fresh_tenant()
    async with asked_sidecar.client() as admin:
        await put_tenant(admin, acme)
        token = await token_of(admin, kind, acme)
        (closed,) = hosts(asked_sidecar.url, token=token, on_outage="closed")
        (open_,) = hosts(asked_sidecar.url, token=token, on_outage="open")
        headers = {"X-Tenant-ID": acme}
        async with httpx.AsyncClient(
            verify=False, headers=headers, timeout=PATIENT_SECONDS
        ) as client:
            for _ in range(30):
                assert (await client.get(closed.url)).status_code == 503
                answer = await client.get(open_.url)
                assert (answer.status_code, answer.json()["degraded"]) == (200, True)
        for host in (closed, open_):
            assert host.log.count("no sidecar decides") == 1
            assert token not in host.log
        # The sidecar admitted nothing.
        assert (await check(admin, acme, dry_run=True))["remaining"] == 4


@pytest.mark.parametrize("kind", ERRORS)
@pytest.mark.parametrize("on_outage", ["local", "closed"])
async def test_a_client_whose_token_may_not_check_raises(
    asked_sidecar: Sidecar, kind: str, on_outage: str
) -> None:
    acme = fresh_tenant()
    async with asked_sidecar.client() as admin:
        await put_tenant(admin, acme)
        token = await token_of(admin, kind, acme)
    options = {"deadline": PATIENT_SECONDS, "on_outage": on_outage}
    async with Partywall(asked_sidecar.url, token, **options) as pw:  # type: ignore[arg-type] # by name
        for _ in range(3):
            with pytest.raises(ERRORS[kind]) as raised:
                await pw.check(acme)
            assert token not in str(raised.value)

    def ask() -> None:
        with SyncPartywall(asked_sidecar.url, token, **options) as pw:  # type: ignore[arg-type] # as above
            pw.check(acme)

    with pytest.raises(ERRORS[kind]):
        await asyncio.to_thread(ask)


async def test_a_revoked_token_stops_a_running_app(
    asked_sidecar: Sidecar, hosts: HostsFactory
) -> None:
    acme = fresh_tenant()
    async with asked_sidecar.client() as admin:
        await put_tenant(admin, acme, tier="enterprise")
        token = await new_token(admin, "host")
        options = {"on_outage": "closed", "deadline": PATIENT_SECONDS}
        (host,) = hosts(asked_sidecar.url, token=token["token"], **options)
        async with httpx.AsyncClient(
            verify=False, headers={"X-Tenant-ID": acme}, timeout=60
        ) as client:
            assert (await client.get(host.url)).status_code == 200
            assert (await admin.delete(f"/v1/tokens/{token['id']}")).status_code == 204

            async def stopped() -> bool:
                return (await client.get(host.url)).status_code == 503

            await until(stopped)
            for _ in range(20):
                assert await stopped()
    assert host.log.count("no sidecar decides") == 1
