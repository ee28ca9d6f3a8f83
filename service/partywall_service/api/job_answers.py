"""First answers to POSTs of jobs, by their `Idempotency-Key`.

They are kept beside the jobs, in the queue's Redis. An answer is written once what it tells is
done, so a crash between the two leaves a key without an answer: its repetition does it again, and a
job that was enqueued is found by the id that its key gives it.
"""

import hashlib
import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import cached_property
from typing import TypeVar

import msgspec
from redis.exceptions import RedisError

from partywall.deadline import within
from partywall_service.api.job_problems import job_problem_of
from partywall_service.api.problems import CONTENT_TYPE, Problem
from partywall_service.api.raw import Answer
from partywall_service.quotas.service import RETRIED
from partywall_workers.errors import JobError, QueueUnavailable
from partywall_workers.queue import FairQueue

KEPT = 48 * 3600
"""Seconds: twice what is promised, so that no clock's error breaks it."""

KEPT_RETRIED = 600
"""Seconds, under a key that names one attempt, repeated only for want of an answer."""

DEADLINE = 5.0
"""Seconds that Redis has for a look or a line."""

Told = TypeVar("Told")


class _Kept(msgspec.Struct, array_like=True):
    fingerprint: bytes
    answer: Answer


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(_Kept)


@dataclass(frozen=True)
class Question:
    """A POST, and by what its repetition is known.

    Attributes:
        tenant: whose jobs it is about.
        path: the method and the path below the tenant, which is the key's scope.
        key: the caller's idempotency key; None when it sent none.
        body: as it was read. What counts is what it says: neither the order of its keys nor its
            spaces, nor whether a default was written out.
    """

    tenant: str
    path: str
    key: str | None
    body: object = None

    @cached_property
    def fingerprint(self) -> bytes:
        """Tells another body under the same key."""
        said = json.dumps(self.body, sort_keys=True, default=str)
        return hashlib.sha256(f"{self.path}\n{said}".encode()).digest()

    @property
    def job_id(self) -> str | None:
        """The id of the job that it makes; the same again at each repetition."""
        if self.key is None:
            return None
        # Of the body, too: the job may be kept for longer than the answer is.
        return hashlib.sha256(self.key.encode() + self.fingerprint).hexdigest()[:32]

    def place(self, queue: str) -> str:
        """The Redis key of its answer."""
        scope = hashlib.sha256(f"{self.path}\n{self.key}".encode()).hexdigest()
        return f"{queue}:answer:{self.tenant}:{scope}"


async def answered_once(
    queue: FairQueue, question: Question, act: Callable[[], Awaitable[Answer]]
) -> Answer:
    """The first answer under the question's key, or what `act` answers now.

    Refusals are answers, too. Of two that act at the same time the first to write its answer gives
    it to both.

    Raises:
        Problem: what only a repetition can tell (`unavailable`); or `conflict`, where the key
            stands for another body.
        QueueUnavailable: Redis did not answer; a repetition tells what was done.
    """
    if question.key is None:
        return await act()
    place = question.place(queue.name)
    kept = await _told(queue.redis.get(place))
    if kept is None:
        answer = await _acted(act)
        one_attempt = question.key.startswith(RETRIED)
        if one_attempt and answer.status >= 400:
            return answer
        kept = _encoder.encode(_Kept(question.fingerprint, answer))
        seconds = KEPT_RETRIED if one_attempt else KEPT
        if await _told(queue.redis.set(place, kept, ex=seconds, nx=True)):
            return answer
        kept = await _told(queue.redis.get(place)) or kept
    return _answer_of(kept, question)


async def _acted(act: Callable[[], Awaitable[Answer]]) -> Answer:
    try:
        return await act()
    except JobError as error:
        problem = job_problem_of(error)
        if problem.status >= 500:
            raise
    except Problem as refused:
        problem = refused
        if problem.status >= 500:
            raise
    return Answer(problem.status, CONTENT_TYPE, problem.body(), tuple(problem.headers.items()))


def _answer_of(line: bytes, question: Question) -> Answer:
    kept = _decoder.decode(line)
    if kept.fingerprint != question.fingerprint:
        raise Problem("conflict", "the idempotency key was used for another request before")
    return kept.answer


async def _told(command: Awaitable[Told]) -> Told:
    try:
        async with within(DEADLINE):
            return await command
    except (RedisError, OSError, TimeoutError) as error:
        raise QueueUnavailable(f"the queue's Redis did not answer: {error}") from error
