"""`/v1/check`: one check a request, beside a no-op on the same server and `limits` in FastAPI."""

from statistics import median

from benchmarks import setup
from benchmarks.load import drive, post
from benchmarks.report import Row

CONNECTIONS = 64
ROUNDS = 5
SECONDS = 2.0


async def run(stores: setup.Stores) -> list[Row]:
    """Rounds of each in turn, so that a noisy moment of the machine hits all alike."""
    tenants = [f"tenant-{number}" for number in range(1000)]
    requests = [
        post("/v1/check", b'{"tenant":"%s"}' % tenant.encode(), setup.TOKEN) for tenant in tenants
    ]
    rates: dict[str, list[float]] = {"ours": [], "noop": [], "limits": []}
    with (
        setup.sidecar(stores) as ours,
        setup.app("noop", stores) as noop,
        setup.app("fastapi_with_limits", stores, factory=True) as limits,
    ):
        urls = {"ours": ours, "noop": noop, "limits": limits}
        for url in urls.values():
            await drive(url, requests, connections=CONNECTIONS, seconds=1)
        for _ in range(ROUNDS):
            for name, url in urls.items():
                load = await drive(url, requests, connections=CONNECTIONS, seconds=SECONDS)
                rates[name].append(load.rate)
    of_noop = median(a / b for a, b in zip(rates["ours"], rates["noop"], strict=True))
    of_limits = median(a / b for a, b in zip(rates["ours"], rates["limits"], strict=True))
    middle = {name: median(values) for name, values in rates.items()}
    what = f"/v1/check, requests/s, {CONNECTIONS} connections"
    return [
        Row(what, middle["ours"], middle["noop"], "no-op raw ASGI callable", of_noop, ">= 0.40"),
        Row(
            what, middle["ours"], middle["limits"], "FastAPI route, limits moving window", of_limits
        ),
    ]
