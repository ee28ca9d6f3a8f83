"""What reads usage, made of the stores that hold it."""

from collections.abc import Sequence
from dataclasses import dataclass

from redis.asyncio import Redis, RedisCluster
from sqlalchemy.ext.asyncio import AsyncEngine

from partywall_service.policy.holder import PolicyHolder
from partywall_service.usage.jobs_source import JobsSource
from partywall_service.usage.levels import LevelHistory
from partywall_service.usage.limits_source import LimitsSource
from partywall_service.usage.neighbours import Neighbours, NeighbourStore
from partywall_service.usage.notices import NoticeStore
from partywall_service.usage.pulse import PulseStore
from partywall_service.usage.reading import LiveLevels, UsageReader
from partywall_service.usage.reports import Ledger, Quotas, Reports
from partywall_service.usage.source import Source
from partywall_service.usage.store import UsageStore
from partywall_service.usage.totals import UsageTotals
from partywall_workers.redis import FairRedis
from partywall_workers.usage import JobUsage

DEADLINE = 5.0
"""Seconds that Redis has for each call of a reader, which nobody's check waits for."""


@dataclass(frozen=True)
class Usage:
    """Usage as it is read.

    Attributes:
        sources: where counts wait for the roll-up.
        reader: of one tenant, by step.
        reports: of all tenants, for a period.
        neighbours: who is noisy and who suffers.
        notices: what webhooks are told.
        pulse: how much is decided now.
    """

    sources: tuple[Source, ...]
    reader: UsageReader
    reports: Reports
    neighbours: Neighbours
    notices: NoticeStore
    pulse: PulseStore


def usage_sources(
    client: Redis | RedisCluster, prefix: str, jobs: FairRedis | None
) -> tuple[Source, ...]:
    """Where counts wait for the roll-up.

    Args:
        client: of the Redis where decisions are counted.
        prefix: what its keys begin with.
        jobs: where jobs are; None where there can be none.
    """
    limits = LimitsSource(client, prefix, DEADLINE)
    return (limits,) if jobs is None else (limits, JobsSource(JobUsage(jobs, timeout=DEADLINE)))


def usage_of(
    engine: AsyncEngine,
    sources: Sequence[Source],
    policy: PolicyHolder,
    ledger: Ledger,
    levels: LiveLevels,
    overview: Quotas,
) -> Usage:
    """All that reads usage.

    Args:
        engine: PostgreSQL.
        sources: where counts wait for the roll-up.
        policy: the tiers.
        ledger: who is registered.
        levels: one tenant's quotas as they are.
        overview: many tenants' quotas as they are.
    """
    history = LevelHistory(engine)
    return Usage(
        tuple(sources),
        UsageReader(UsageStore(engine), sources, history, levels),
        Reports(UsageTotals(engine), sources, history, overview, ledger, policy),
        Neighbours(NeighbourStore(engine), sources, policy),
        NoticeStore(engine),
        PulseStore(engine),
    )
