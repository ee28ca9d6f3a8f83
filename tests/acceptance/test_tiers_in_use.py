"""A tier that tenants have cannot be edited away under them."""

from tests.support.processes import eventually

BOTH = """
[tiers.free.limits]
requests = "100/minute"
[tiers.pro.limits]
requests = "1000/minute"
"""
ONE = """
[tiers.free.limits]
requests = "7/minute"
"""


async def quota(client, tenant: str) -> int:
    answer = await client.post("/v1/check", json={"tenant": tenant, "dry_run": True})
    return answer.json()["windows"][0]["quota"]


async def test_a_reload_that_takes_a_tier_away_waits_until_its_tenants_have_moved(sidecar):
    one = sidecar(quotas=BOTH)
    async with one.client() as client:
        await client.put("/v1/tenants/acme", json={"tier": "pro"})
        await client.put("/v1/tenants/beta", json={"tier": "free"})
        one.quotas.write_text(ONE)
        eventually(lambda: "tiers.pro: expected to stay" in one.log)
        assert (await quota(client, "acme"), await quota(client, "beta")) == (1000, 100)
        await client.put("/v1/tenants/acme", json={"tier": "free"})
        eventually(lambda: "policy.applied" in one.log)
        assert (await quota(client, "acme"), await quota(client, "beta")) == (7, 7)
    assert one.log.count("tiers.pro: expected to stay") == 1


async def test_a_start_without_a_tier_that_tenants_have_says_so_and_refuses_them(sidecar):
    one = sidecar(quotas=BOTH)
    async with one.client() as client:
        await client.put("/v1/tenants/acme", json={"tier": "pro"})
    one.stop()
    one.quotas.write_text(ONE)
    one.start()
    eventually(lambda: "policy.tier_missing" in one.log)
    async with one.client() as client:
        assert (await client.post("/v1/check", json={"tenant": "acme"})).status_code == 404
        one.quotas.write_text(ONE.replace("7/minute", "9/minute"))
        eventually(lambda: "policy.applied" in one.log)
        await client.put("/v1/tenants/acme", json={"tier": "free"})
        assert await quota(client, "acme") == 9
