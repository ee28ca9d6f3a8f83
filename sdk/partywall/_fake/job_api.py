"""The fake sidecar's jobs over REST: paths and bodies (docs/contract.md section 4, Jobs)."""

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from math import ceil
from typing import Annotated, Any, get_args
from urllib.parse import unquote

import httpx
import msgspec

from partywall._fake.asked import Asked
from partywall._fake.bodies import read
from partywall._fake.core import Core
from partywall._fake.queue import NewJob, Queue, SeenJob
from partywall._fake.redis import PRIORITY
from partywall._fake.refused import Refused
from partywall.jobs.arguments import (
    HIGHEST,
    JOB_ID_PATTERN,
    LOWEST,
    MAX_DEFER,
    MAX_NAME,
    NO_JOB_IDS,
)
from partywall.jobs.records import JobStatus
from partywall.tenants import is_tenant_id


class _Enqueue(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    function: Annotated[str, msgspec.Meta(min_length=1, max_length=MAX_NAME)]
    args: list[Any] = []
    kwargs: dict[str, Any] = {}
    job_id: Annotated[str, msgspec.Meta(pattern=f"^{JOB_ID_PATTERN.pattern}$")] | None = None
    defer_by: Annotated[float, msgspec.Meta(ge=0, le=MAX_DEFER)] | None = None
    defer_until: Annotated[datetime, msgspec.Meta(tz=True)] | None = None
    priority: Annotated[int, msgspec.Meta(ge=LOWEST, le=HIGHEST)] = PRIORITY


class _Nothing(msgspec.Struct, frozen=True):
    pass


def job_answer(
    core: Core, tenant: str, path: Sequence[str], request: httpx.Request, body: bytes
) -> tuple[int, object]:
    """The status of what is answered to a request on one tenant's jobs, and the document.

    Args:
        core: what the fake sidecar knows.
        tenant: its id.
        path: the parts of it below the tenant, still quoted.
        request: for its method, parameters and headers.
        body: its body.

    Raises:
        Refused: it is answered with a problem.
    """
    if not is_tenant_id(tenant):
        raise Refused("invalid-request", f"expected a tenant's id; got {tenant!r}", "tenant")
    asked = Asked(core, tenant, request, body)
    most = asked.tier.max_queued
    queue = core.queue(tenant)
    match [asked.method, *map(unquote, path)]:
        case ["POST", "jobs"]:
            return _enqueued(asked, queue, most)
        case ["GET", "jobs"]:
            return 200, _page(asked, queue)
        case ["POST", "jobs", "pause" | "resume" | "purge" as verb]:
            return 200, asked.once(_Nothing(), lambda _: _changed(queue, tenant, verb))
        case ["GET", "jobs", job_id]:
            return 200, _shown(queue.get(job_id))
        case ["DELETE", "jobs", job_id]:
            return 200, _shown(queue.cancel(job_id))
        case ["POST", "jobs", job_id, "retry"]:
            return 200, asked.once(_Nothing(), lambda _: _shown(queue.retry(job_id, most)))
    raise Refused("not-found", f"the fake sidecar has no {request.method} {request.url.path}")


def _enqueued(asked: Asked, queue: Queue, most: int | None) -> tuple[int, object]:
    wanted = read(asked.body, _Enqueue)
    if wanted.job_id in NO_JOB_IDS:
        expected = f"expected an id other than {', '.join(NO_JOB_IDS)}"
        raise Refused("invalid-request", f"{expected}; got {wanted.job_id!r}", "job_id")
    if wanted.defer_by is not None and wanted.defer_until is not None:
        raise Refused("invalid-request", "expected either this or defer_by", "defer_until")
    milliseconds = ceil((wanted.defer_by or 0) * 1000)
    new = NewJob(
        function=wanted.function,
        args=wanted.args,
        kwargs=wanted.kwargs,
        job_id=wanted.job_id,
        priority=wanted.priority,
        run_at=wanted.defer_until
        or asked.core.to_the_millisecond() + timedelta(milliseconds=milliseconds),
    )

    def enqueue(_: str | None) -> tuple[int, object]:
        job, is_new = queue.enqueue(new, most)
        return 202 if is_new else 200, _shown(job)

    answer: tuple[int, object] = asked.once(wanted, enqueue)
    return answer


def _page(asked: Asked, queue: Queue) -> object:
    params = asked.request.url.params
    status = params.get("status")
    if status is not None and status not in get_args(JobStatus):
        expected = ", ".join(get_args(JobStatus))
        raise Refused("invalid-request", f"expected one of {expected}; got {status!r}", "status")
    rest = queue.jobs()[::-1]
    if "cursor" in params:
        # Among all of them: the last of a page may have another status by now.
        ids = [job.id for job in rest]
        rest = rest[ids.index(params["cursor"]) + 1 :] if params["cursor"] in ids else []
    found = [job for job in rest if status in (None, job.status)]
    size = int(params.get("page_size", "100"))
    page = found[:size]
    return {
        "jobs": [_shown(job) for job in page],
        "next_cursor": page[-1].id if len(found) > size else None,
    }


def _changed(queue: Queue, tenant: str, verb: str) -> object:
    purged = queue.purge() if verb == "purge" else 0
    if verb != "purge":
        queue.paused = verb == "pause"
    return {"tenant": tenant, "paused": queue.paused, "purged": purged}


def _shown(job: SeenJob) -> Mapping[str, object]:
    """As the real one writes it: what it was enqueued with is the worker's to know."""
    document: dict[str, object] = msgspec.to_builtins(job)
    del document["args"], document["kwargs"]
    if job.traceback is None:
        del document["traceback"]
    return document
