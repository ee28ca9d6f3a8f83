"""A typed façade over each Lua script: its signature is the script's calling contract."""

from collections.abc import Sequence
from typing import Any

from redis.asyncio import Redis, RedisCluster
from redis.exceptions import NoScriptError

from partywall.decision import Window
from partywall.lua import LuaFile
from partywall_service.engine import keys
from partywall_service.engine.base import Ask, Check, Count, Question, Return, Verdict, horizon
from partywall_service.engine.memory import MICROSECONDS
from partywall_service.policy.model import Rate

_LOOK, _CHECK, _ASK, _RETURN, _ADMITTED, _DENIED = range(6)
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
        metering: whether decisions are counted for usage.
    """

    def __init__(self, prefix: str, *, metering: bool = True) -> None:
        self._script = Script("decide")
        self._prefix = prefix
        self._metering = metering

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
        plans: dict[tuple[str, tuple[Rate, ...], bool], int] = {}
        first_keys: dict[tuple[str, str, tuple[Rate, ...]], int] = {}
        counted_at: dict[str, int] = {}
        names: list[str] = []
        asked: list[int] = []
        for question in questions:
            subject = tenant, limit, rates = question[:3]
            enforce = question.enforce if isinstance(question, Check) else True
            planned = limit, rates, enforce
            plan = plans.get(planned)
            if plan is None:
                plan = plans[planned] = len(plans) + 1
            first = first_keys.get(subject)
            if first is None:
                first = first_keys[subject] = len(names) + 1
                names += [keys.window(self._prefix, tenant, limit, r.window) for r in rates]
            if isinstance(question, Check | Count):
                counted = 0
                if self._metering:
                    counted = counted_at.get(tenant, 0)
                    if not counted:
                        names.append(keys.usage(self._prefix, tenant))
                        counted = counted_at[tenant] = len(names)
                if isinstance(question, Count):
                    kind = _ADMITTED if question.outcome == "admitted" else _DENIED
                    asked += (plan, first, 1, kind, counted)
                elif question.dry_run:
                    asked += (plan, first, question.cost, _LOOK)
                else:
                    asked += (plan, first, question.cost, _CHECK, counted)
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
        numbers: list[int] = []
        words: list[str] = []
        for limit, rates, enforce in plans:
            numbers += (len(rates), horizon(rates))
            for quota, window in rates:
                numbers += (quota, window * MICROSECONDS)
            words.append(f"limits.{limit}. {'denied' if enforce else 'would_deny'}")
        given = "" if now is None else str(now)
        return names, [given, _numbers(numbers), _numbers(asked), " ".join(words)]

    @staticmethod
    def _verdicts(questions: Sequence[Question], reply: Sequence[int]) -> list[Verdict]:
        verdicts = []
        at = 0
        for question in questions:
            allowed, wait = reply[at] == 1, reply[at + 1]
            at += 2
            granted = 0
            if isinstance(question, Ask | Return):
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
