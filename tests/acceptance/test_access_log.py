"""A real access log through a running sidecar, each client a tenant."""

import asyncio
import time
from collections import Counter
from pathlib import Path

from partywall_service.accesslog import open_log, parse_line
from partywall_service.names import is_tenant_id
from tests.acceptance.asking import PATIENT, checks
from tests.conftest import SidecarFactory

ROOT = Path(__file__).parents[2]
REAL = ROOT.parent / "shared" / "data" / "apache_access.log.gz"
SAMPLE = ROOT / "tests" / "data" / "access.log"

QUOTA = 100
"""Requests a minute of the shipped policy's default tier."""


def clients(log: Path) -> list[str]:
    """Who asked, line by line; hosts that are no tenant ids (IPv6) left out."""
    with open_log(str(log)) as lines:
        entries = [parse_line(line) for line in lines if line is not None]
    return [entry.host for entry in entries if entry is not None and is_tenant_id(entry.host)]


async def test_every_line_gets_its_decision(sidecar: SidecarFactory) -> None:
    hosts = clients(REAL if REAL.exists() else SAMPLE)
    assert len(hosts) == 10_000 or not REAL.exists()
    # A client that asks for more than its quota is in every log, here if not there.
    hosts += ["192.0.2.99"] * (QUOTA + 50)
    one = sidecar(env=PATIENT)
    async with one.client() as client:
        began = time.time()
        lists = [
            [{"tenant": host} for host in hosts[start : start + 1000]]
            for start in range(0, len(hosts), 1000)
        ]
        answers = await asyncio.gather(*(checks(client, asked) for asked in lists))
        took = time.time() - began
    decisions = [decision for answer in answers for decision in answer]
    assert [decision["tenant"] for decision in decisions] == hosts
    assert not any(decision["degraded"] for decision in decisions)
    assert {decision["tier"] for decision in decisions} == {"free"}
    asked = Counter(hosts)
    admitted = Counter(it["tenant"] for it in decisions if it["allowed"])
    fits = {host: min(count, QUOTA) for host, count in asked.items()}
    if took < 60:
        assert admitted == fits
        denied = sum(not decision["allowed"] for decision in decisions)
        assert denied == sum(max(0, count - QUOTA) for count in asked.values()) >= 50
    else:  # a machine so slow that a window began to have room again
        assert all(admitted[host] >= least for host, least in fits.items())
