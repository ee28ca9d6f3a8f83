"""A worker's settings: as a class, by arguments, from the environment."""

import asyncio
import logging
import pickle
from pathlib import Path
from typing import Any, ClassVar

import pytest
from arq.connections import ArqRedis, RedisSettings, create_pool
from arq.cron import cron
from arq.jobs import Job
from arq.worker import func

from partywall import Partywall
from partywall_workers import (
    FairRedis,
    FairWorkerSettings,
    InvalidJob,
    create_worker,
    job,
    run_worker,
)
from partywall_workers.worker import FairWorker
from tests.servers.workers.working import Ctx, Held, Work

NAMES = ("PARTYWALL_REDIS_URL", "PARTYWALL_JOBS_REDIS_URL", "PARTYWALL_KEY_PREFIX")


@pytest.fixture(autouse=True)
def nothing_is_set(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in (*NAMES, "PARTYWALL_DATA_DIR", "PARTYWALL_JOBS_KEEP", "PARTYWALL_JOBS_KEEP_DEAD"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)


async def noop(ctx: Ctx) -> str:
    return "done"


async def startup(ctx: Ctx) -> None:
    ctx["started"] = True


class Base(FairWorkerSettings):
    functions = (noop,)
    redis_url: ClassVar[str | None] = "redis://base.example:6379/3"
    max_jobs = 7
    job_timeout = 11
    handle_signals = False

    on_startup = startup


class Derived(Base):
    max_jobs = 8
    queues = ("dedicated", "default")
    lease = 20
    key_prefix = "other"
    keep_dead = 60


def target(worker: FairWorker) -> dict[str, Any]:
    assert isinstance(worker._pool, FairRedis)
    return dict(worker._pool.connection_pool.connection_kwargs)


async def test_what_base_classes_say_counts_and_the_derived_class_wins() -> None:
    base, derived = create_worker(Base), create_worker(Derived)
    assert (base.max_jobs, base.lanes, base.queue_name) == (7, ("default",), "pw:jobs")
    assert (derived.max_jobs, derived.job_timeout_s) == (8, 11)
    assert (derived.lanes, derived.queue_name) == (("dedicated", "default"), "other:jobs")
    assert (derived._lease, derived.keep_dead_ms) == (20, 60_000)
    assert derived.on_startup is Base.on_startup
    assert (target(derived)["host"], target(derived)["db"]) == ("base.example", 3)


async def test_arguments_win_over_the_class() -> None:
    worker = create_worker(
        Derived,
        max_jobs=9,
        lanes=("mine",),
        queue_name="mine:jobs",
        redis_url="redis://mine.example",
        burst=True,
    )
    assert (worker.max_jobs, worker.lanes, worker.burst) == (9, ("mine",), True)
    assert worker.queue_name == "mine:jobs"
    assert target(worker)["host"] == "mine.example"


async def test_an_argument_says_where_redis_is_however_the_class_does(valkey_url: str) -> None:
    class ByArq(Base):
        redis_url = None
        redis_settings = RedisSettings(host="arq.example")

    assert create_worker(ByArq)._pool is None
    assert target(create_worker(ByArq, redis_url="redis://mine.example"))["host"] == "mine.example"
    pool = FairRedis.from_url("redis://pool.example", queue_name="pool:jobs")
    given = create_worker(ByArq, redis_pool=pool)
    assert (target(given)["host"], given.queue_name) == ("pool.example", "pool:jobs")


async def test_a_class_of_arqs_own_names_is_enough(work: Work) -> None:
    class Settings:
        functions = (noop,)
        burst = True
        handle_signals = False
        redis_settings = RedisSettings.from_dsn(work.url)
        queue_name = work.queue.name

    handle = await work.enqueue(noop)
    worker = create_worker(Settings)
    await worker.async_run()
    await worker.close()
    assert await handle.result(timeout=1) == "done"


def test_run_worker_runs_to_the_end_and_closes(valkey_url: str, key_prefix: str) -> None:
    seen: list[str] = []

    async def shutdown(ctx: Ctx) -> None:
        seen.append(ctx["said"])

    class Settings(FairWorkerSettings):
        functions = (noop,)
        ctx = {"said": "bye"}  # noqa: RUF012 - as arq has it
        on_shutdown = shutdown

    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    try:
        worker = run_worker(
            Settings,
            burst=True,
            redis_url=valkey_url,
            queue_name=f"{key_prefix}:jobs",
            handle_signals=False,
        )
    finally:
        asyncio.set_event_loop(None)
        loop.close()
    assert seen == ["bye"]
    assert worker.jobs_complete == 0


async def test_the_environment_says_what_the_class_leaves_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Settings(FairWorkerSettings):
        functions = (noop,)
        handle_signals = False

    monkeypatch.setenv("PARTYWALL_REDIS_URL", "redis://env.example")
    monkeypatch.setenv("PARTYWALL_KEY_PREFIX", "ours")
    monkeypatch.setenv("PARTYWALL_JOBS_KEEP", "50")
    monkeypatch.setenv("PARTYWALL_JOBS_KEEP_DEAD", "100")
    worker = create_worker(Settings)
    assert target(worker)["host"] == "env.example"
    assert worker.queue_name == "ours:jobs"
    assert (worker.keep_result_s, worker.keep_dead_ms) == (50, 100_000)
    monkeypatch.setenv("PARTYWALL_JOBS_REDIS_URL", "redis://jobs.example")
    assert target(create_worker(Settings))["host"] == "jobs.example"
    assert target(create_worker(Base, handle_signals=False))["host"] == "base.example"


async def test_without_a_redis_a_worker_says_what_to_do() -> None:
    class Settings(FairWorkerSettings):
        functions = (noop,)

    with pytest.raises(InvalidJob) as refused:
        create_worker(Settings)
    said = str(refused.value)
    assert said.startswith(
        "redis_url: expected the URL of the queue's Redis: set PARTYWALL_REDIS_URL"
    )
    assert "partywall serve" in said


async def test_the_embedded_valkey_of_this_directory_is_found(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    socket = tmp_path / ".partywall" / "valkey" / "valkey.sock"
    socket.parent.mkdir(parents=True)
    socket.touch()
    worker = FairWorker((noop,), handle_signals=False)
    assert target(worker)["path"] == str(socket)


@pytest.mark.parametrize("misspelt", ["max_job", "on_start_up", "function", "redis_ulr"])
async def test_a_name_that_is_most_likely_misspelt_is_told(
    caplog: pytest.LogCaptureFixture, misspelt: str
) -> None:
    wrong = type("Wrong", (Base,), {misspelt: 1})
    with caplog.at_level(logging.WARNING, "partywall.worker"):
        create_worker(wrong)
    (line,) = caplog.messages
    assert line.startswith(f"Wrong.{misspelt} is no setting of a worker's: is ")


async def test_names_of_an_apps_own_are_let_be(caplog: pytest.LogCaptureFixture) -> None:
    wrong = type("Mine", (Base,), {"database_url": "x", "mail_host": "y"})
    create_worker(wrong)
    assert caplog.messages == []


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"lanes": ()}, "queues: expected a list of at least one queue"),
        ({"lanes": "default"}, "queues: expected a list"),
        ({"lanes": ["bad name*"]}, r"queues: expected names of .*; got 'bad name\*'"),
        ({"lanes": [7]}, "queues: expected names of .*; got 7"),
        ({"lease": 0.5}, "lease: expected seconds from 1"),
        ({"lease": "15"}, "lease: expected seconds from 1; got '15'"),
        ({"max_jobs": 0}, "max_jobs: expected a whole number from 1"),
        ({"max_jobs": "x"}, "max_jobs: expected a whole number from 1; got 'x'"),
        ({"max_tries": "3"}, "max_tries: expected a whole number from 1; got '3'"),
        ({"max_tries": 0}, "max_tries: expected a whole number from 1; got 0"),
        ({"max_tries": None}, "max_tries: expected a whole number from 1; got None"),
        ({"max_burst_jobs": 1.5}, "max_burst_jobs: expected a whole number, -1 for no end"),
        ({"keep_result": -1}, "keep_result: expected seconds from 0; got -1"),
        ({"keep_dead": float("inf")}, "keep_dead: expected seconds from 0; got inf"),
        ({"job_timeout": 0}, "job_timeout: expected seconds above 0, or None for no end; got 0"),
        ({"job_completion_wait": True}, "job_completion_wait: expected seconds from 0"),
        ({"functions": noop}, "functions: expected a list; got <function noop"),
        ({"functions": [print]}, "functions: expected coroutine functions; got <built-in"),
        ({"functions": ["nope.nothing"]}, "functions: .* 'nope.nothing' .*No module named 'nope'"),
        ({"functions": [func(noop, max_tries="3")]}, "max_tries of noop: expected a whole number"),
        ({"cron_jobs": [cron(noop, timeout="1")]}, "timeout of cron:noop: expected seconds above"),
        ({"redis_url": "http://localhost"}, "Redis URL must specify one of"),
    ],
)
async def test_a_setting_that_cannot_be_is_refused(options: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        create_worker(Base, **options)


async def test_none_is_no_end_where_arq_has_it_so(work: Work) -> None:
    async def other(ctx: Ctx) -> str:
        return "done"

    handle = await work.enqueue(other)
    options: dict[str, Any] = {"job_timeout": None, "keep_result": None, "keep_dead": None}
    await work.burst(noop, other, job_completion_wait=None, **options)
    assert await handle.result(timeout=1) == "done"


async def test_a_worker_needs_a_function() -> None:
    with pytest.raises(RuntimeError, match="at least one function or cron_job"):
        create_worker(Base, functions=())


async def test_a_worker_closes_the_client_it_made_and_leaves_alone_what_it_was_given(
    work: Work, monkeypatch: pytest.MonkeyPatch
) -> None:
    closed: list[Partywall] = []
    aclose = Partywall.aclose

    async def counted(self: Partywall) -> None:
        closed.append(self)
        await aclose(self)

    monkeypatch.setattr(Partywall, "aclose", counted)

    class Settings(Base):
        sidecar_url = "http://127.0.0.1:9"
        token = "secret"

    given = Partywall("http://127.0.0.1:9")
    for options in ({}, {"sidecar": given}):
        worker = create_worker(Settings, **options, redis_pool=work.worker(noop)._pool, burst=True)
        used = worker.sidecar
        await worker.async_run()
        await worker.close()
        assert (used in closed) is (not options)


@pytest.mark.parametrize("of", ["pool", "settings"])
async def test_a_serializer_of_ones_own_is_used_for_jobs_and_results(work: Work, of: str) -> None:
    when = {1: (2, 3)}

    @job(name="odd")
    async def odd(ctx: Ctx, given: Any) -> Any:
        return given

    client = FairRedis.from_url(
        work.url,
        queue_name=work.queue.name,
        job_serializer=pickle.dumps,
        job_deserializer=pickle.loads,
    )
    own = {"job_serializer": pickle.dumps, "job_deserializer": pickle.loads}
    handle = await client.enqueue_job(odd, when, _tenant="acme")
    assert handle is not None
    pool = FairRedis.from_url(work.url, queue_name=work.queue.name, **(own if of == "pool" else {}))
    await work.burst(odd, redis_pool=pool, **(own if of == "settings" else {}))
    assert await handle.result(timeout=1) == when
    await client.aclose(close_connection_pool=True)


async def test_a_worker_tells_once_of_jobs_that_a_plain_client_of_arq_put_into_its_queue(
    work: Work, caplog: pytest.LogCaptureFixture
) -> None:
    async with await create_pool(RedisSettings.from_dsn(work.url)) as plain:
        for _ in range(2):
            await plain.enqueue_job("noop", _queue_name=work.queue.name)
        handle = await work.enqueue(noop)
        await work.burst(noop)
        assert await handle.result(timeout=1) == "done"
        (said,) = [one for one in caplog.messages if "plain client of arq" in one]
        assert said.startswith(f"2 jobs in {work.queue.name} are of a plain client of arq")
        assert "enqueue with FairRedis" in said
        await plain.delete(work.queue.name)
    caplog.clear()
    await work.enqueue(noop)
    await work.burst(noop)
    assert not [one for one in caplog.messages if "plain client of arq" in one]


async def test_a_function_may_be_named_by_its_path(work: Work) -> None:
    path = f"{__name__}.noop"
    handle = await work.enqueue(path)
    await work.burst(path)
    assert await handle.result(timeout=1) == "done"


async def test_a_pool_of_another_queue_is_used_for_the_workers_own(work: Work) -> None:
    handle = await work.enqueue("held")
    held = Held()
    held.end()
    await work.burst(
        held.function(),
        redis_pool=FairRedis.from_url(work.url, queue_name="another:jobs"),
        queue_name=work.queue.name,
    )
    assert await handle.result(timeout=1) == "done"


async def test_a_pool_of_arqs_own_is_used(work: Work) -> None:
    handle = await work.enqueue("held")
    held = Held()
    held.end()
    plain: ArqRedis = await create_pool(RedisSettings.from_dsn(work.url))
    worker = await work.burst(held.function(), redis_pool=plain, queue_name=work.queue.name)
    again = Job(handle.job_id, work.redis, work.queue.name, work.redis.job_deserializer)
    assert await again.result(timeout=1) == "done"
    assert worker._pool is None
