"""The middleware in a host app on one core, beside the app alone and behind its peers."""

from collections.abc import Sequence
from contextlib import ExitStack
from statistics import median

from benchmarks import setup
from benchmarks.load import Load, drive, get
from benchmarks.report import Row

CONNECTIONS = 64
ROUNDS = 5
SECONDS = 2.0
HOT_TENANTS = 100
COLD_TENANTS = 100_000
FEW = "100/minute"

ADMITTED = frozenset({200})
EITHER = frozenset({200, 429})


async def run(stores: setup.Stores) -> list[Row]:
    """Hot tenants, a denied flood, cold tenants, and one client alone."""
    return [
        *await _hot(stores),
        *await _flood(stores),
        *await _cold(stores),
        *await _alone(stores),
    ]


async def _hot(stores: setup.Stores) -> list[Row]:
    requests = _requests(HOT_TENANTS)
    names = ["bare", "partywall", "limits", "slowapi", "throttled"]
    rates = await _rounds(stores, names, requests, connections=CONNECTIONS)
    what = f"host app, requests/s, {HOT_TENANTS} hot tenants"
    rows = []
    for name in names[1:]:
        label = what if name == "partywall" else f"{what}, behind {name}"
        wanted = ">= 0.80" if name == "partywall" else ""
        rows.append(_row(label, rates, name, wanted))
    return rows


async def _flood(stores: setup.Stores) -> list[Row]:
    requests = _requests(1)
    rates = await _rounds(
        stores,
        ["bare", "partywall"],
        requests,
        connections=CONNECTIONS,
        rate=FEW,
        statuses=EITHER,
    )
    return [
        _row("host app, responses/s, one tenant far over its limit", rates, "partywall", ">= 0.90")
    ]


async def _cold(stores: setup.Stores) -> list[Row]:
    """Each tenant once; tenants of their own in each round, so that all are cold."""
    rates: dict[str, list[float]] = {"partywall": [], "limits": []}
    for round_ in range(3):
        requests = _requests(COLD_TENANTS, f"cold{round_}")
        for name in rates:
            with ExitStack() as stack:
                url = _start(stack, stores, name)
                await drive(url, _requests(1), connections=CONNECTIONS, seconds=0.5)
                load = await drive(url, requests, connections=CONNECTIONS)
                rates[name].append(load.rate)
    ratio = median(a / b for a, b in zip(rates["partywall"], rates["limits"], strict=True))
    return [
        Row(
            f"host app, requests/s, {COLD_TENANTS:,} tenants once each",
            median(rates["partywall"]),
            median(rates["limits"]),
            "limits moving window on Redis",
            ratio,
            ">= 1.0",
        )
    ]


async def _alone(stores: setup.Stores) -> list[Row]:
    """The median of one client's latencies, request after request."""
    requests = _requests(1)
    latencies: dict[str, list[float]] = {"bare": [], "partywall": []}
    with ExitStack() as stack:
        urls = {name: _start(stack, stores, name) for name in latencies}
        for url in urls.values():
            await drive(url, requests, connections=1, seconds=1)
        for _ in range(ROUNDS):
            for name, url in urls.items():
                load = await drive(url, requests, connections=1, seconds=1, timed=True)
                latencies[name].append(median(load.latencies) * 1e6)
    ratio = median(a / b for a, b in zip(latencies["partywall"], latencies["bare"], strict=True))
    return [
        Row(
            "host app, median µs, one client, hot tenant",
            median(latencies["partywall"]),
            median(latencies["bare"]),
            "the app alone",
            ratio,
            "<= 1.25",
        )
    ]


async def _rounds(
    stores: setup.Stores,
    names: Sequence[str],
    requests: Sequence[bytes],
    *,
    connections: int,
    rate: str = setup.PLENTY,
    statuses: frozenset[int] = ADMITTED,
) -> dict[str, list[float]]:
    """Requests a second of each app, in turn, so that a noisy moment hits all alike."""
    rates: dict[str, list[float]] = {name: [] for name in names}
    with ExitStack() as stack:
        urls = {name: _start(stack, stores, name, rate) for name in names}
        for url in urls.values():
            await drive(url, requests, connections=connections, seconds=1, statuses=statuses)
        for _ in range(ROUNDS):
            for name, url in urls.items():
                load: Load = await drive(
                    url, requests, connections=connections, seconds=SECONDS, statuses=statuses
                )
                rates[name].append(load.rate)
    return rates


def _start(stack: ExitStack, stores: setup.Stores, name: str, rate: str = setup.PLENTY) -> str:
    """A host app on the measured core; Partywall's sidecar runs beside it."""
    environment = {}
    if name == "partywall":
        sidecar = stack.enter_context(setup.sidecar(stores, rate=rate, core=setup.BESIDE))
        environment = {"PARTYWALL_SIDECAR_URL": sidecar, "PARTYWALL_TOKEN": setup.TOKEN}
    return stack.enter_context(
        setup.app(
            name,
            stores,
            factory=True,
            module="benchmarks.host_apps",
            environment={"BENCH_RATE": rate, **environment},
        )
    )


def _requests(tenants: int, prefix: str = "tenant") -> list[bytes]:
    return [get("/orders", {"X-Tenant-ID": f"{prefix}-{number}"}) for number in range(tenants)]


def _row(what: str, rates: dict[str, list[float]], name: str, wanted: str) -> Row:
    ratio = median(a / b for a, b in zip(rates[name], rates["bare"], strict=True))
    return Row(what, median(rates[name]), median(rates["bare"]), "the app alone", ratio, wanted)
