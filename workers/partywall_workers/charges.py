"""Quota items of jobs: consumed once for each job, given back where nothing was done for them."""

import json
from hashlib import sha256

from partywall import Partywall
from partywall.errors import (
    ConfigurationError,
    Forbidden,
    PartywallError,
    SidecarUnavailable,
    Unauthenticated,
)
from partywall_workers.job import JobOptions, jittered, refusal_pause
from partywall_workers.scripts import Claimed

SIDECAR_PAUSE = 5.0
"""Seconds before a job is tried again whose quota no sidecar could decide."""

NO_TOKEN = (ConfigurationError, Unauthenticated, Forbidden)
"""What a worker without a token of scope `host` is answered, by its own client or the sidecar: the
worker's fault and no job's, and so no more an answer than an outage is."""


class PutOff(Exception):
    """The try could not begin; nothing of the job's own has run.

    Attributes:
        error: why; one of `NO_TOKEN` if it is the worker's own fault.
        refused: for want of quota.
        pause: seconds until it is worth another try; None: it is not.
    """

    def __init__(self, error: Exception, *, refused: bool = False, pause: float | None) -> None:
        super().__init__(str(error))
        self.error = error
        self.refused = refused
        self.pause = pause


class Charge:
    """What one job takes of its tenant's quotas.

    Args:
        options: what its function declares.
        claimed: the job.
        enqueued_at: when it was enqueued, which tells it from earlier ones of its id.

    Attributes:
        consumed: whether it is taken.
    """

    __slots__ = ("_claimed", "_enqueued_at", "_options", "consumed")

    def __init__(self, options: JobOptions, claimed: Claimed, enqueued_at: int) -> None:
        self._options = options
        self._claimed = claimed
        self._enqueued_at = enqueued_at
        self.consumed = claimed.consumed

    @property
    def due(self) -> bool:
        """Whether there is something to take."""
        return bool(self._options.quota) and not self.consumed

    async def consume(self, sidecar: Partywall) -> None:
        """Takes the items, once for the job, however often this is called.

        Raises:
            PutOff: they were refused, or no sidecar could say, or none says it to this worker.
            PartywallError: they can never be taken.
        """
        options, refusals = self._options, self._claimed.refusals
        try:
            outcome = await sidecar.try_consume(
                # Another key after each refusal, because a refusal is kept with its key as well.
                self._claimed.tenant,
                options.quota,
                idempotency_key=self._key(f"{refusals}"),
            )
        except (SidecarUnavailable, *NO_TOKEN) as exc:
            raise PutOff(exc, pause=jittered(SIDECAR_PAUSE)) from exc
        if not outcome:
            refused = PartywallError(f"quota refused: no room for {', '.join(outcome.denied)}")
            later = options.on_refusal == "retry"
            raise PutOff(refused, refused=True, pause=refusal_pause(refusals) if later else None)
        self.consumed = True

    def owed(self, *, ran: bool, given_back: bool) -> str:
        """What is to be given back if nothing runs any more, as JSON; or nothing.

        Args:
            ran: whether this try called the job's function.
            given_back: whether it wants them given back all the same.
        """
        never_ran = not (ran or self._claimed.ran)
        if not (self._options.quota and self.consumed and (given_back or never_ran)):
            return ""
        key = self._key(f"back:{self._claimed.refusals}")
        return json.dumps(
            {"tenant": self._claimed.tenant, "items": self._options.quota, "key": key}
        )

    def _key(self, which: str) -> str:
        """An idempotency key of this job."""
        text = f"{self._claimed.ref}:{self._enqueued_at}:{which}"
        return f"job:{sha256(text.encode()).hexdigest()}"
