"""Worker processes to kill, stop and continue, and what they tell."""

import asyncio
import json
import os
import signal
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from partywall_workers.queue import FairQueue
from tests.acceptance.asking import until
from tests.support.forked import CONTEXT
from tests.support.job_worker import Life, events_key, gate_key, live, told


class Event(NamedTuple):
    """Something told: `claim`, `run`, `cancelled`, `ready`, `stopping` or `dying …`."""

    what: str
    worker: str
    ref: str
    fence: int


@dataclass(slots=True)
class Ledger:
    """Everything told, in order."""

    events: list[Event]

    def of(self, what: str, ref: str | None = None) -> list[Event]:
        """Those of a kind, of one job or of all."""
        return [one for one in self.events if one.what == what and ref in (None, one.ref)]

    def deaths(self) -> Counter[str]:
        """How many workers died, by instant."""
        dying = [one.what for one in self.events if one.what.startswith("dying ")]
        return Counter(what.removeprefix("dying ") for what in dying)

    def needless(self) -> list[tuple[Event, Event]]:
        """Starts after which the job was started again although their worker lived."""
        dying: set[str] = set()
        last: dict[str, Event] = {}
        found = []
        for one in self.events:
            if one.what.startswith("dying "):
                dying.add(one.worker)
            elif one.what == "claim":
                before = last.get(one.ref)
                if before is not None and before.worker not in dying:
                    found.append((before, one))
                last[one.ref] = one
        return found

    def claims(self) -> dict[str, list[Event]]:
        """The starts of each job, in order."""
        found: defaultdict[str, list[Event]] = defaultdict(list)
        for one in self.of("claim"):
            found[one.ref].append(one)
        return found


class Worker:
    """One process."""

    def __init__(self, life: Life) -> None:
        self.life = life
        self.name = life.name
        self.process: BaseProcess = CONTEXT.Process(target=live, args=(life,), daemon=True)
        self.process.start()

    @property
    def alive(self) -> bool:
        return self.process.is_alive()

    @property
    def log(self) -> str:
        path = Path(self.life.log)
        return path.read_text() if path.exists() else ""

    def signal(self, number: signal.Signals) -> None:
        if self.process.pid is None:
            raise RuntimeError("it has not started")
        os.kill(self.process.pid, number)

    async def ended(self, seconds: float = 20) -> int | None:
        """Its exit code, when it has ended."""
        await until(_async(lambda: not self.process.is_alive()), seconds=seconds)
        return self.process.exitcode

    def close(self) -> None:
        if self.process.is_alive():
            self.process.kill()
        self.process.join()


class Workers:
    """The worker processes of one queue.

    Args:
        queue: the queue.
        url: its Redis.
        directory: where logs go.
    """

    def __init__(self, queue: FairQueue, url: str, directory: Path) -> None:
        self.queue = queue
        self.all: list[Worker] = []
        self._url = url
        self._directory = directory
        self._commands: Any = queue.redis
        self._events = events_key(queue.name)

    def start(self, **life: Any) -> Worker:
        """Starts one; the arguments are those of `Life`."""
        name = f"w{len(self.all)}"
        log = str(self._directory / f"{name}.log")
        one = Worker(Life(url=self._url, queue=self.queue.name, name=name, log=log, **life))
        self.all.append(one)
        return one

    @property
    def living(self) -> list[Worker]:
        return [one for one in self.all if one.alive]

    @property
    def undoomed(self) -> list[Worker]:
        """Those that live, and will not die by themselves."""
        return [one for one in self.living if one.life.dies is None]

    async def kill(self, one: Worker) -> None:
        """Kills it; that it dies is told before it does."""
        await self._commands.rpush(self._events, told("dying at any instant", one.name))
        one.signal(signal.SIGKILL)
        assert await one.ended() == -signal.SIGKILL

    async def stop(self) -> None:
        """Lets all that live end as they do on SIGTERM."""
        living = self.living
        for one in living:
            one.signal(signal.SIGTERM)
        codes = [await one.ended() for one in living]
        assert codes == [0] * len(living)

    async def ledger(self) -> Ledger:
        """What was told so far."""
        lines = await self._commands.lrange(self._events, 0, -1)
        return Ledger([Event(*json.loads(line)) for line in lines])

    async def told(self, what: str, *, by: Worker | None = None, ref: str | None = None) -> Event:
        """Waits until it is told."""

        async def ask() -> list[Event]:
            found = (await self.ledger()).of(what, ref)
            return [one for one in found if by is None or one.worker == by.name]

        events, _ = await until(ask)
        return events[-1]

    async def ready(self, *workers: Worker) -> None:
        """Waits until they have started."""
        for one in workers:
            await self.told("ready", by=one)

    async def open(self, gate: str, times: int = 1) -> None:
        """Lets so many held jobs go on that wait, or will, at the gate."""
        await self._commands.rpush(gate_key(self.queue.name, gate), *[1] * times)

    async def finished(self, seconds: float = 60) -> None:
        """Waits until no job is left to run."""
        await until(self._empty, seconds=seconds)

    async def left(self) -> list[str]:
        """Keys that a queue without an unfinished job must not have."""
        name = self.queue.name
        kinds = ("ready", "deferred", "running", "active")
        unwanted = [f"{name}:{kind}:*" for kind in kinds]
        unwanted += [f"{name}:{one}" for one in ("leases", "busy", "due")]
        unwanted += [name, f"arq:in-progress:{name}:*", f"arq:job:{name}:*"]
        found: list[str] = []
        for pattern in unwanted:
            found += [key.decode() async for key in self._commands.scan_iter(pattern, count=10_000)]
        return found

    async def _empty(self) -> bool:
        return bool(await self._commands.zcard(self.queue.name) == 0)

    def close(self) -> None:
        for one in self.all:
            one.close()


class WorkersFactory(Protocol):
    """`workers(queue, url)`: worker processes of a queue."""

    def __call__(self, queue: FairQueue, url: str) -> Workers: ...


@contextmanager
def workers_in(directory: Path) -> Iterator[WorkersFactory]:
    """Whatever they make is killed at the end; their logs show on failure."""
    made: list[Workers] = []

    def make(queue: FairQueue, url: str) -> Workers:
        folder = directory / str(len(made))
        folder.mkdir()
        made.append(Workers(queue, url, folder))
        return made[-1]

    try:
        yield make
    finally:
        for workers in made:
            workers.close()
            for one in workers.all:
                print(f"--- {one.name}: {one.process.exitcode} ---\n{one.log}")  # noqa: T201 - shown on failure


def _async(ask: Callable[[], bool]) -> Callable[[], Any]:
    async def asked() -> bool:
        return ask()

    return asked


async def enqueue(queue: FairQueue, ref: str, function: str, *args: object) -> None:
    """Queues a job by `tenant:job_id`."""
    tenant, _, job_id = ref.partition(":")
    enqueued = await queue.enqueue(tenant, function, args, job_id=job_id)
    assert enqueued.created


async def enqueue_all(queue: FairQueue, function: str, jobs: dict[str, tuple[object, ...]]) -> None:
    """As `enqueue`, many at a time."""
    items = list(jobs.items())
    for start in range(0, len(items), 100):
        chunk = items[start : start + 100]
        await asyncio.gather(*(enqueue(queue, ref, function, *args) for ref, args in chunk))
