"""Which tenant's job a line of the log is about."""

import asyncio
import logging
from collections.abc import Iterator
from logging.handlers import QueueHandler, QueueListener
from queue import SimpleQueue

import pytest

from partywall.context import Tenant, running_as
from partywall_workers import JobContextFilter, job
from tests.servers.workers.working import Ctx, Work

MINE = logging.getLogger("tests.app.mail")


class Lines(logging.Handler):
    """Keeps (tenant, job id, message) of each record."""

    def __init__(self) -> None:
        super().__init__()
        self.told: list[tuple[str | None, str | None, str]] = []

    def emit(self, record: logging.LogRecord) -> None:
        named = vars(record)
        self.told.append((named["tenant"], named["job_id"], record.getMessage()))


@pytest.fixture
def lines() -> Iterator[Lines]:
    handler = Lines()
    handler.addFilter(JobContextFilter())
    root = logging.getLogger()
    levels = {logger: logger.level for logger in (root, MINE)}
    for logger in levels:
        logger.setLevel(logging.INFO)
    root.addHandler(handler)
    yield handler
    root.removeHandler(handler)
    for logger, level in levels.items():
        logger.setLevel(level)


async def test_lines_of_jobs_side_by_side_each_name_their_own(work: Work, lines: Lines) -> None:
    meet = asyncio.Barrier(2)

    def in_a_thread() -> None:
        MINE.info("in a thread")

    @job
    async def talk(ctx: Ctx) -> None:
        for _ in range(3):
            await meet.wait()
            MINE.info("talking")
        await asyncio.to_thread(in_a_thread)

    for tenant in ("acme", "globex"):
        await work.enqueue(talk, _tenant=tenant, _job_id=f"of-{tenant}")
    MINE.info("outside")
    await work.burst(talk)
    mine = [line for line in lines.told if line[2] in ("talking", "in a thread", "outside")]
    assert mine[0] == (None, None, "outside")
    for tenant in ("acme", "globex"):
        its = [line for line in mine if line[0] == tenant]
        assert its == [(tenant, f"of-{tenant}", "talking")] * 3 + [
            (tenant, f"of-{tenant}", "in a thread")
        ]


async def test_a_workers_own_lines_of_a_job_name_it_too(work: Work, lines: Lines) -> None:
    @job(max_tries=2, backoff=0)
    async def fail(ctx: Ctx) -> None:
        raise OSError("no route")

    async def hook(ctx: Ctx) -> None:
        MINE.info("hooked")

    handle = await work.enqueue(fail, _job_id="it")
    await work.burst(fail, on_job_start=hook, on_job_end=hook, after_job_end=hook)
    about = [line for line in lines.told if handle.job_id in line[2] or line[2] == "hooked"]
    assert len(about) == 4 + 6  # it starts, is put off, starts, fails; three hooks each time
    assert {line[:2] for line in about} == {("acme", "it")}
    assert all(line[:2] == (None, None) for line in lines.told if line not in about)


def test_a_request_names_its_tenant_and_no_job(lines: Lines) -> None:
    with running_as(Tenant("acme")):
        MINE.info("in a request")
    assert lines.told == [("acme", None, "in a request")]


def test_what_a_record_says_by_itself_stays() -> None:
    """As with a queue of logging's own, whose listener is in a thread where no job runs."""
    last = Lines()
    last.addFilter(JobContextFilter())
    waiting: SimpleQueue[logging.LogRecord] = SimpleQueue()
    first = QueueHandler(waiting)
    first.addFilter(JobContextFilter())
    listener = QueueListener(waiting, last)
    listener.start()
    with running_as(Tenant("acme")):
        first.handle(MINE.makeRecord("x", logging.INFO, "x", 1, "said", (), None))
    listener.stop()
    assert last.told == [("acme", None, "said")]
