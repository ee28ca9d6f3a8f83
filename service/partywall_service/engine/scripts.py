"""A typed façade over each Lua script: its signature is the script's calling contract."""

from collections.abc import Sequence
from typing import Any

from redis.asyncio import Redis, RedisCluster
from redis.exceptions import NoScriptError

from partywall.decision import Window
from partywall.lua import LuaFile
from partywall_service.engine import keys
from partywall_service.engine.base import Ask, Check, Question, Verdict, horizon
from partywall_service.engine.memory import MICROSECONDS
from partywall_service.policy.model import Rate

_LOOK, _CHECK, _ASK, _RETURN = range(4)
"""What is asked, as the script's header numbers it."""


class Script(LuaFile):
    """A Lua file, called by its digest and sent whole where the server does not know it yet.

    A server forgets its scripts when it restarts, fails over or is flushed, so any call may find
    it ignorant; sending the text then costs one round trip, once.

    Args:
        name: of the file.
        package: beside whose modules the folder `lua` is.
    """

    def __init__(self, name: str, package: str = __package__) -> None:
        super().__init__(name, package)

    async def __call__(
        self, client: Redis | RedisCluster, keys: Sequence[str], args: Sequence[str | int]
    ) -> Any:  # noqa: ANN401 - what a script returns is known to its façade alone
        """Runs it, and gives back what it returns."""
        try:
            return await client.execute_command("EVALSHA", self.sha, len(keys), *keys, *args)
        except NoScriptError:
            return await client.execute_command("EVAL", self.text, len(keys), *keys, *args)


class DecideScript:
    """`decide.lua`: a batch of questions, answered in order as one atomic step.

    Args:
        prefix: what every key of this installation starts with.
    """

    def __init__(self, prefix: str) -> None:
        self._script = Script("decide")
        self._prefix = prefix

    async def __call__(
        self, client: Redis | RedisCluster, questions: Sequence[Question], *, now: int | None = None
    ) -> list[Verdict]:
        """One verdict for each question, in order.

        Args:
            client: the server, or the node, that holds every question's keys.
            questions: of one shard if the client is a cluster's.
            now: microseconds since the epoch in place of the server's clock, for tests.
        """
        names, args = self._encode(questions, now)
        reply = await self._script(client, names, args)
        return self._verdicts(questions, reply)

    def _encode(
        self, questions: Sequence[Question], now: int | None
    ) -> tuple[list[str], list[str]]:
        plans: dict[tuple[Rate, ...], int] = {}
        first_keys: dict[tuple[str, str, tuple[Rate, ...]], int] = {}
        names: list[str] = []
        asked: list[int] = []
        for question in questions:
            subject = tenant, limit, rates = question[:3]
            plan = plans.get(rates)
            if plan is None:
                plan = plans[rates] = len(plans) + 1
            first = first_keys.get(subject)
            if first is None:
                first = first_keys[subject] = len(names) + 1
                names += [keys.window(self._prefix, tenant, limit, r.window) for r in rates]
            if isinstance(question, Check):
                asked += (plan, first, question.cost, _LOOK if question.dry_run else _CHECK)
                continue
            record = 0
            if question.lease:
                names.append(keys.lease(self._prefix, tenant, limit, question.lease))
                record = len(names)
            if isinstance(question, Ask):
                need = question.need
                asked += (plan, first, question.cost, _ASK, need, question.ahead)
                asked += (question.lasts(need), record)
            else:
                asked += (plan, first, question.units, _RETURN, record)
        planned: list[int] = []
        for rates in plans:
            planned += (len(rates), horizon(rates))
            for quota, window in rates:
                planned += (quota, window * MICROSECONDS)
        return names, ["" if now is None else str(now), _numbers(planned), _numbers(asked)]

    @staticmethod
    def _verdicts(questions: Sequence[Question], reply: Sequence[int]) -> list[Verdict]:
        verdicts = []
        at = 0
        for question in questions:
            allowed, wait = reply[at] == 1, reply[at + 1]
            at += 2
            granted = 0
            if not isinstance(question, Check):
                granted = reply[at]
                at += 1
            windows = []
            for quota, window in question.rates:
                remaining, reset = quota - reply[at], reply[at + 1]
                at += 2
                windows.append(Window(quota, window, max(0, remaining), reset / MICROSECONDS))
            retry_after = None if wait < 0 else wait / MICROSECONDS
            verdicts.append(Verdict(allowed, retry_after, tuple(windows), granted))
        return verdicts


def _numbers(numbers: Sequence[int]) -> str:
    """Many numbers as one argument: packing each by itself costs more than deciding a check."""
    return " ".join(map(str, numbers))
