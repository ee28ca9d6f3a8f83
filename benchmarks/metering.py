"""What counting for usage costs `/v1/check`: with and without, by turns in one run."""

from statistics import median

from benchmarks import setup
from benchmarks.load import drive, post
from benchmarks.report import Row

CONNECTIONS = 64
ROUNDS = 7
SECONDS = 2.0


async def run(stores: setup.Stores) -> list[Row]:
    """Two sidecars on one core and one Valkey, under the same load, never at once."""
    requests = [
        post("/v1/check", b'{"tenant":"metered-%d"}' % number, setup.TOKEN)
        for number in range(1000)
    ]
    rates: dict[str, list[float]] = {"with": [], "without": []}
    with (
        setup.sidecar(stores) as metered,
        setup.sidecar(stores, environment={"PARTYWALL_METERING": "false"}) as plain,
    ):
        urls = {"with": metered, "without": plain}
        for url in urls.values():
            await drive(url, requests, connections=CONNECTIONS, seconds=1)
        for turn in range(ROUNDS):
            # Who is first may find the machine in another state than who is second.
            for name in sorted(urls, reverse=turn % 2 == 1):
                load = await drive(urls[name], requests, connections=CONNECTIONS, seconds=SECONDS)
                rates[name].append(load.rate)
    ratio = median(a / b for a, b in zip(rates["with"], rates["without"], strict=True))
    middle = {name: median(values) for name, values in rates.items()}
    return [
        Row(
            "/v1/check, requests/s, decisions counted for usage",
            middle["with"],
            middle["without"],
            "the same without counting",
            ratio,
            ">= 0.85",
        )
    ]
