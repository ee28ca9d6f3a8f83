"""Notices by HTTP, signed as Standard Webhooks has it (https://www.standardwebhooks.com)."""

import asyncio
import hashlib
import json
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from typing import NamedTuple
from urllib.parse import urlsplit

import httpx
from standardwebhooks import Webhook

from partywall_service.usage.notices import Kept, NoticeStore, Outcome

TIMEOUT = 5.0
"""Seconds that a webhook has to answer, all in all."""

GONE = 410
"""The receiver wants no more of it: Standard Webhooks asks that it be left alone."""


_TAKEN, _GONE = "taken", "gone"


class NotDelivered(Exception):
    """Some webhook did not take a notice; the message says which, and why."""


class Webhooks:
    """Where notices go.

    Args:
        store: where they are kept.
        urls: all of them get every notice.
        secret: what they are signed with, as the settings have checked it.
        http: sends them.
    """

    def __init__(
        self, store: NoticeStore, urls: Sequence[str], secret: str, http: httpx.AsyncClient
    ) -> None:
        self._store = store
        self._urls = {_digest(url): url for url in urls}
        self._signer = Webhook(secret)
        self._http = http

    async def deliver(self, notice_id: str, *, last: bool = False) -> None:
        """Sends a notice to every webhook that has not taken it yet.

        Any answer of 2xx is a receipt; 410 means never to ask there again for this notice. It may
        come twice where a receipt is lost: its `webhook-id` is the same then.

        Args:
            notice_id: which; one that is delivered, or not kept any more, is left alone.
            last: whether there is no further try.

        Raises:
            NotDelivered: some did not take it, and it is not given up.
            LedgerUnavailable: PostgreSQL did not answer.
        """
        notice = await self._store.find(notice_id)
        if notice is None or notice.status != "pending":
            return
        settled = dict(one.split(":") for one in notice.settled)
        due = {name: url for name, url in self._urls.items() if name not in settled}
        posted = await asyncio.gather(*(self._post(url, notice) for url in due.values()))
        answers = dict(zip(due, posted, strict=True))
        settled |= {name: one.settles for name, one in answers.items() if one.settles}
        faults = "; ".join(one.fault for one in answers.values() if one.fault)
        left = settled.keys() < answers.keys() | settled.keys()
        outcome: Outcome | None = None
        if not left:
            outcome = "delivered" if _TAKEN in settled.values() else "failed"
        elif last:
            outcome = "failed"
        await self._store.tried(
            notice_id,
            settled=[f"{name}:{how}" for name, how in settled.items()],
            error=faults or None,
            outcome=outcome,
        )
        if left:
            raise NotDelivered(faults)

    async def _post(self, url: str, notice: Kept) -> "_Answer":
        """Sends it to one."""
        content = json.dumps(notice.body, separators=(",", ":"), ensure_ascii=False)
        now = datetime.now(UTC)
        headers = {
            "content-type": "application/json",
            "webhook-id": notice.id,
            "webhook-timestamp": str(int(now.timestamp())),
            "webhook-signature": self._signer.sign(notice.id, now, content),
        }
        # The rest of a URL may be a secret, as chat programs have it.
        host = urlsplit(url).hostname
        try:
            async with (
                asyncio.timeout(TIMEOUT),
                self._http.stream("POST", url, content=content, headers=headers) as answer,
            ):
                status = answer.status_code
        except (TimeoutError, httpx.TimeoutException):
            return _Answer(None, f"{host} did not answer within {TIMEOUT:g} s")
        except (httpx.HTTPError, httpx.InvalidURL, OSError) as exc:
            return _Answer(None, f"{host} could not be asked: {str(exc) or type(exc).__name__}")
        if 200 <= status < 300:
            return _Answer(_TAKEN, None)
        return _Answer(_GONE if status == GONE else None, f"{host} answered {status}")


class _Answer(NamedTuple):
    """What became of one request.

    Attributes:
        settles: how this webhook is done with the notice; None when it is asked again.
        fault: why it did not take it.
    """

    settles: str | None
    fault: str | None


def webhook_client() -> httpx.AsyncClient:
    """A client for `Webhooks`; close it."""
    return httpx.AsyncClient(
        timeout=TIMEOUT,
        follow_redirects=False,  # what is signed for one receiver is for no other
        headers={"user-agent": f"partywall/{version('partywall')}"},
    )


def _digest(url: str) -> str:
    return hashlib.sha256(url.encode()).hexdigest()[:16]
