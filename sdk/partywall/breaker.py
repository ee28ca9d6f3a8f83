"""A circuit breaker: while the sidecar does not answer, nobody waits to learn it again."""

import logging
import random
import time
from collections.abc import Callable
from types import TracebackType
from typing import Self

from partywall.errors import SidecarUnavailable

PROBE_SECONDS = 0.2
"""Between one failed call and the next that is tried, give or take a fifth: processes that lost
their sidecar together should not come back to it together."""

PATIENCE_SECONDS = 1.0
"""How long a probe without a result keeps others from being tried: it may have a long deadline."""

log = logging.getLogger("partywall")


class CircuitBreaker:
    """Lets calls through while they succeed; fails them at once after one has failed.

    Closed: all go through. Open: one goes through every `PROBE_SECONDS`, the probe; the others fail
    at once, and its success closes the circuit. There is no background task: a process that asks
    for nothing probes nothing.

    Args:
        name: what it stands before, for messages.
        clock: seconds that never go back.
        uniform: as `random.uniform`.
    """

    def __init__(
        self,
        name: str,
        *,
        clock: Callable[[], float] = time.monotonic,
        uniform: Callable[[float, float], float] = random.uniform,
    ) -> None:
        self._name = name
        self._clock = clock
        self._uniform = uniform
        self._cause: str | None = None
        self._changes = 0
        self._probe_at = 0.0

    @property
    def closed(self) -> bool:
        """Whether calls go through."""
        return self._cause is None

    def enter(self) -> "Call":
        """Begins a call: tell the result to what is returned, in a `with`.

        Raises:
            SidecarUnavailable: the circuit is open, and this is not the probe.
        """
        if self._cause is not None:
            now = self._clock()
            if now < self._probe_at:
                raise SidecarUnavailable(f"not tried again yet: {self._cause}")
            self._probe_at = now + PATIENCE_SECONDS
        return Call(self, self._changes)

    def _succeeded(self, begun: int) -> None:
        if self._cause is not None and begun == self._changes:
            self._cause = None
            self._changes += 1
            log.info("the sidecar at %s answers again", self._name)

    def _failed(self, begun: int, cause: str) -> None:
        # What began before the last change tells of a time that is over.
        if begun != self._changes:
            return
        if self._cause is None:
            self._changes += 1
            log.info("the sidecar at %s does not answer: %s", self._name, cause)
        self._cause = cause
        self._probe_at = self._clock() + PROBE_SECONDS * self._uniform(0.8, 1.2)

    def _abandoned(self, begun: int) -> None:
        if self._cause is not None and begun == self._changes:
            self._probe_at = self._clock()


class Call:
    """One call through a breaker. One that ends without a result says nothing about the sidecar."""

    __slots__ = ("_begun", "_breaker", "_told")

    def __init__(self, breaker: CircuitBreaker, begun: int) -> None:
        self._breaker = breaker
        self._begun = begun
        self._told = False

    def succeeded(self) -> None:
        """There was an answer, whatever it said."""
        self._told = True
        self._breaker._succeeded(self._begun)  # noqa: SLF001 - two classes of one thing

    def failed(self, cause: object) -> None:
        """There was none."""
        self._told = True
        self._breaker._failed(self._begun, str(cause))  # noqa: SLF001 - as above

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if not self._told:
            self._breaker._abandoned(self._begun)  # noqa: SLF001 - as above
