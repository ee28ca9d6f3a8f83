"""create_app(): the only place where parts are wired."""

import gc
import socket
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from uuid import uuid4

from fastapi import FastAPI

from partywall_service import dashboard
from partywall_service.admission import Admission
from partywall_service.api import create_api
from partywall_service.api.auth import Authenticator
from partywall_service.api.deps import Parts
from partywall_service.api.hot import HOT_ROUTES, HotEndpoints, HotParts
from partywall_service.background import run_in_background, stop_in_background
from partywall_service.directory import Directory
from partywall_service.engine.base import StoreError
from partywall_service.engine.batching import Batcher
from partywall_service.engine.breaker import CircuitBreaker
from partywall_service.engine.connect import connect, disconnect, warn_if_forgetful
from partywall_service.engine.local import LocalLimiter
from partywall_service.engine.presence import Presence
from partywall_service.engine.redis import RedisEngine
from partywall_service.jobs.connect import can_queue, open_queue
from partywall_service.jobs.keeper import Keeper
from partywall_service.jobs.kept import KeptPolicies
from partywall_service.jobs.metrics import JobMetrics
from partywall_service.ledger import Ledger, create_ledger_engine
from partywall_service.logs import hide
from partywall_service.maintenance.mark import Mark
from partywall_service.maintenance.rolling import open_roller, roll_up_where_nobody_does
from partywall_service.metrics import Metrics
from partywall_service.permits import Permits
from partywall_service.policy.holder import PolicyHolder
from partywall_service.policy.loader import load_policy
from partywall_service.quotas.commits import GroupCommit
from partywall_service.quotas.gate import RedisGate
from partywall_service.quotas.overview import QuotaOverview
from partywall_service.quotas.service import Quotas
from partywall_service.quotas.store import QuotaStore
from partywall_service.quotas.sweep import sweep
from partywall_service.quotas.volatile import VolatileQuotas
from partywall_service.settings import Settings
from partywall_service.tenants.connect import whole_tenants
from partywall_service.upkeep import PolicyUpkeep, heed_changes
from partywall_service.usage.adding import Adder
from partywall_service.usage.connect import DEADLINE, usage_of, usage_sources
from partywall_service.usage.kept import KeptCounts
from partywall_service.usage.metrics import RollUpMetrics
from partywall_service.usage.neighbour_metrics import BusiestStore, NeighbourMetrics
from partywall_service.usage.notice_metrics import NoticeMetrics
from partywall_service.usage.outages import OutageWatch
from partywall_service.usage.reported import Reported
from partywall_service.usage.store import UsageStore

_COLLECT_AFTER = (10_000, 20, 20)
"""Objects made before the collector looks; and turns of one generation to one of the next."""


def create_app(settings: Settings) -> HotEndpoints:
    """The sidecar as an ASGI app; it opens everything in its lifespan.

    Args:
        settings: with both URLs and the admin token given; `serve` fills in what is embedded.

    Raises:
        PolicyError: at start-up, when the policy cannot be read.
    """

    @asynccontextmanager
    async def lifespan(api: FastAPI) -> AsyncIterator[None]:
        async with AsyncExitStack() as stack:
            parts = await _open(settings, stack, hot)
            api.state.parts = parts
            # What is there by now stays: looked through anew it would hold up a request by 0.1 s.
            gc.collect()
            gc.freeze()
            # A batch makes thousands of objects that end with it, and hardly a cycle.
            gc.set_threshold(*_COLLECT_AFTER)
            yield

    log_all = settings.log_requests
    api = create_api(lifespan=lifespan, hot_routes=HOT_ROUTES, log_all=log_all)
    api.include_router(dashboard.router)
    hot = HotEndpoints(api, log_all=log_all)
    return hot


def create_app_from_env() -> HotEndpoints:
    """What a worker process of `serve --workers` runs: everything comes from the environment."""
    return create_app(Settings())


async def _open(settings: Settings, stack: AsyncExitStack, hot: HotEndpoints) -> Parts:
    if settings.redis_url is None or settings.database_url is None or settings.admin_token is None:
        raise ValueError("redis_url, database_url and admin_token are needed: `serve` gives them")
    hide(settings.admin_token)
    database_url = settings.database_url
    metrics = Metrics()
    policy = PolicyHolder(load_policy(settings.config))

    ledger_engine = create_ledger_engine(database_url)
    stack.push_async_callback(ledger_engine.dispose)
    ledger = Ledger(ledger_engine)
    authenticator = Authenticator(ledger, settings.admin_token)
    directory = Directory(ledger, policy, size=settings.tenant_cache_size)

    client = connect(settings.redis_url)
    stack.push_async_callback(disconnect, client)
    deadline = settings.redis_timeout_ms / 1000
    presence = Presence(client, uuid4().hex, prefix=settings.key_prefix, deadline=deadline)
    engine = RedisEngine(
        client,
        prefix=settings.key_prefix,
        deadline=deadline,
        metering=settings.metering,
        observe=metrics.store_answered,
    )
    breaker = CircuitBreaker(engine, presence.beat, metrics.store_changed)
    with suppress(StoreError):  # then the watch finds it lost, and says so
        await engine.warm_up()
    local = LocalLimiter(lambda: presence.instances)
    # The breaker stands behind the batches: those that gathered before an outage fail at once, too.
    batcher = Batcher(breaker)
    reported = kept = None
    if settings.metering:
        adder = Adder(client, prefix=settings.key_prefix, deadline=deadline)
        reported = Reported(directory, adder)
        kept = KeptCounts(adder, metrics.usage_lost)
        stack.push_async_callback(kept.close)
        task = run_in_background("kept counts", kept.run)
        stack.push_async_callback(stop_in_background, task)
    admission = Admission(directory, batcher, local, metrics.decisions, kept)
    permits = Permits(directory, batcher, local, policy, presence, metrics.decisions)

    quota_store = QuotaStore(ledger_engine)
    volatile = VolatileQuotas(client, prefix=settings.key_prefix, deadline=deadline)
    quotas = Quotas(
        directory,
        policy,
        quota_store,
        GroupCommit(quota_store),
        volatile,
        RedisGate(client, prefix=settings.key_prefix, deadline=deadline),
        metrics.quotas,
    )

    jobs_url = settings.jobs_redis_url or settings.redis_url
    jobs = await stack.enter_async_context(
        open_queue(
            jobs_url,
            prefix=settings.key_prefix,
            keep=settings.jobs_keep,
            metering=settings.metering,
        )
    )
    keeper = None
    if can_queue(jobs_url):
        keeper = Keeper(jobs, KeptPolicies(jobs.redis), directory)
        task = run_in_background("job policies", keeper.run)
        stack.push_async_callback(stop_in_background, task)
        metrics.sources.append(JobMetrics(jobs))

    queued = jobs.redis if can_queue(jobs_url) else None
    roller = await stack.enter_async_context(
        open_roller(ledger_engine, settings, settings.redis_url, queued)
    )
    metrics.sources.append(RollUpMetrics(UsageStore(ledger_engine)))

    maintained = Mark(jobs.redis, jobs.name)
    upkeep = PolicyUpkeep(settings.config, policy, ledger, metrics, keeper)
    for task in (
        run_in_background("store watch", breaker.watch),
        run_in_background("store advice", lambda: warn_if_forgetful(client), once=True),
        run_in_background(
            "change listener",
            lambda: heed_changes(database_url, directory, authenticator, keeper, metrics),
        ),
        run_in_background("policy watch", upkeep.watch),
        run_in_background("quota sweep", lambda: sweep(quota_store, maintained.is_there)),
        run_in_background("usage roll-up", lambda: roll_up_where_nobody_does(roller)),
        run_in_background("tier check", upkeep.check_tiers, once=True),
    ):
        stack.push_async_callback(stop_in_background, task)
    hot.open(HotParts(admission, permits, authenticator, policy, quotas, reported))
    usage = usage_of(
        ledger_engine,
        usage_sources(client, settings.key_prefix, queued),
        policy,
        ledger,
        quotas,
        # Of a thousand tenants at once: no check waits for them, so they may take their time.
        QuotaOverview(
            ledger_engine,
            policy,
            VolatileQuotas(client, prefix=settings.key_prefix, deadline=DEADLINE),
        ),
    )
    metrics.sources.append(NoticeMetrics(usage.notices))
    metrics.sources.append(NeighbourMetrics(BusiestStore(ledger_engine)))
    outages = OutageWatch(
        usage.notices, lambda: breaker.closed, f"{socket.gethostname()}:{settings.port}"
    )
    task = run_in_background("outage notices", outages.run)
    stack.push_async_callback(stop_in_background, task)
    erasure, export = whole_tenants(
        ledger_engine,
        ledger,
        directory,
        client,
        jobs,
        usage.sources,
        prefix=settings.key_prefix,
    )
    return Parts(
        policy,
        ledger,
        authenticator,
        directory,
        breaker,
        metrics,
        quotas,
        jobs,
        erasure,
        export,
        usage,
    )
