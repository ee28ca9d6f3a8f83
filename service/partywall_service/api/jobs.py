"""Jobs: enqueued, read, cancelled, revived; and the queues they wait in."""

from collections.abc import Awaitable, Callable
from typing import Annotated

import msgspec
import structlog
from fastapi import APIRouter, Depends, Request, Response
from starlette.convertors import StringConvertor, register_url_convertor

from partywall_service.api.auth import Principal
from partywall_service.api.deps import AuthenticatedRoute, Host, Parts, PartsDep, require_own
from partywall_service.api.job_answers import Question, answered_once
from partywall_service.api.job_schemas import Job, JobRequest, Jobs, Queue, Queues, QueueState
from partywall_service.api.openapi import problems
from partywall_service.api.paging import Cursor
from partywall_service.api.params import (
    DEFAULT_PAGE,
    CursorQuery,
    JobPath,
    JobStatusFilter,
    PageSize,
    QueuePath,
    TenantPath,
)
from partywall_service.api.problems import Problem
from partywall_service.api.quota_schemas import Key
from partywall_service.api.raw import Answer
from partywall_service.api.tenants import unknown_tenant
from partywall_service.ledger.errors import LedgerUnavailable
from partywall_service.names import QUEUE_VERBS, is_tenant_id
from partywall_workers.errors import UnknownJob

_JSON = "application/json"

log = structlog.get_logger()


class _JobConvertor(StringConvertor):
    """A segment that is no verb of the queue: `GET …/jobs/pause` is a wrong method, not a job."""

    regex = f"(?!(?:{'|'.join(QUEUE_VERBS)})$)[^/]+"


register_url_convertor("job", _JobConvertor())
_JOB = "/tenants/{tenant}/jobs/{job_id:job}"

_cursor: Cursor[str] = Cursor("jobs", Annotated[str, msgspec.Meta(pattern="^[0-9]{1,16}$")])

router = APIRouter(prefix="/v1", tags=["jobs"], route_class=AuthenticatedRoute)


async def _may_read(request: Request) -> Principal:
    principal = await require_own(request)
    if principal.scope != "admin" and request.path_params["tenant"].startswith("_"):
        raise Problem("forbidden", "only an admin's token reads what is no tenant's")
    return principal


QueueReader = Annotated[Principal, Depends(_may_read)]
"""As `Reader`; and an admin, for the jobs that are no tenant's."""


@router.post(
    "/tenants/{tenant}/jobs",
    status_code=202,
    response_model=Job,
    summary="Enqueue a job",
    response_description="It will run.",
    responses={
        200: {"model": Job, "description": "There is one of this id already: this."},
        **problems("unknown-tenant", "conflict", "queue-full"),
    },
)
async def enqueue_job(
    tenant: TenantPath, asked: JobRequest, parts: PartsDep, _: Host, key: Key = None
) -> Response:
    """It starts when it is the tenant's turn; a suspended tenant's waits until it is active."""
    await _check_known(parts, tenant)
    question = Question(tenant, "POST jobs", key, asked.model_dump())

    async def act() -> Answer:
        done = await parts.jobs.enqueue(
            tenant,
            asked.function,
            asked.args,
            asked.kwargs,
            job_id=asked.job_id or question.job_id,
            priority=asked.priority,
            defer_by=asked.defer_by,
            defer_until=asked.defer_until,
        )
        body = Job.of(done.job).model_dump_json().encode()
        if not done.created:
            return Answer(200, _JSON, body)
        location = f"/v1/tenants/{tenant}/jobs/{done.job.job_id}"
        return Answer(202, _JSON, body, (("Location", location),))

    return _response(await answered_once(parts.jobs, question, act))


@router.get(
    "/tenants/{tenant}/jobs", summary="List a tenant's jobs", responses=problems("unknown-tenant")
)
async def list_jobs(
    tenant: QueuePath,
    parts: PartsDep,
    reader: QueueReader,
    status: JobStatusFilter = None,
    cursor: CursorQuery = None,
    page_size: PageSize = DEFAULT_PAGE,
) -> Jobs:
    """Newest first; finished ones while they are kept. What a deleted tenant left is there."""
    page, following = await parts.jobs.list(
        tenant, status=status, after=_cursor.decode(cursor), limit=page_size
    )
    if not page:
        await _check_known(parts, tenant)
    return Jobs(
        jobs=[Job.of(one, traceback=reader.scope != "tenant") for one in page],
        next_cursor=None if following is None else _cursor.encode(following),
    )


@router.get(_JOB, summary="Read a job", responses=problems("unknown-tenant", "unknown-job"))
async def get_job(tenant: QueuePath, job_id: JobPath, parts: PartsDep, reader: QueueReader) -> Job:
    """How it stands; its result once it has succeeded, while that is kept."""
    try:
        record = await parts.jobs.get(tenant, job_id)
    except UnknownJob:
        await _check_known(parts, tenant)
        raise
    return Job.of(record, traceback=reader.scope != "tenant")


@router.delete(
    _JOB,
    summary="Cancel a job",
    responses=problems("unknown-tenant", "unknown-job", "conflict"),
)
async def cancel_job(tenant: TenantPath, job_id: JobPath, parts: PartsDep, _: Host) -> Job:
    """At once when it waits. Running, it is asked to end: for up to 2 s that is waited for."""
    try:
        return Job.of(await parts.jobs.cancel(tenant, job_id))
    except UnknownJob:
        await _check_known(parts, tenant)
        raise


@router.post(
    f"{_JOB}/retry",
    response_model=Job,
    summary="Revive a dead job",
    responses=problems("unknown-tenant", "unknown-job", "conflict", "queue-full"),
)
async def retry_job(
    tenant: TenantPath, job_id: JobPath, parts: PartsDep, _: Host, key: Key = None
) -> Response:
    """It is queued again, with all its tries."""
    await _check_known(parts, tenant)

    async def act() -> Answer:
        record = await parts.jobs.retry(tenant, job_id)
        return Answer(200, _JSON, Job.of(record).model_dump_json().encode())

    question = Question(tenant, f"POST jobs/{job_id}/retry", key)
    return _response(await answered_once(parts.jobs, question, act))


@router.post(
    "/tenants/{tenant}/jobs/pause",
    response_model=QueueState,
    summary="Start none of a tenant's jobs",
    responses=problems("unknown-tenant", "conflict"),
)
async def pause_jobs(
    tenant: TenantPath, parts: PartsDep, caller: Host, key: Key = None
) -> Response:
    """Those that run go on. More can be enqueued; none of them expires meanwhile."""
    question = Question(tenant, "POST jobs/pause", key)
    return await _set_paused(parts, caller, question, parts.jobs.pause, "jobs.paused")


@router.post(
    "/tenants/{tenant}/jobs/resume",
    response_model=QueueState,
    summary="Start a paused tenant's jobs again",
    responses=problems("unknown-tenant", "conflict"),
)
async def resume_jobs(
    tenant: TenantPath, parts: PartsDep, caller: Host, key: Key = None
) -> Response:
    """In their order."""
    question = Question(tenant, "POST jobs/resume", key)
    return await _set_paused(parts, caller, question, parts.jobs.resume, "jobs.resumed")


@router.post(
    "/tenants/{tenant}/jobs/purge",
    response_model=QueueState,
    summary="Cancel a tenant's waiting jobs",
    responses=problems("unknown-tenant", "conflict"),
)
async def purge_jobs(
    tenant: TenantPath, parts: PartsDep, caller: Host, key: Key = None
) -> Response:
    """All that wait or are deferred, also what a deleted tenant left. Those that run go on."""

    async def act() -> QueueState:
        purged = await parts.jobs.purge(tenant)
        if purged:
            await _note(parts, caller, "jobs.purged", tenant, purged=purged)
        else:
            await _check_known(parts, tenant)
        return QueueState(tenant=tenant, paused=await parts.jobs.paused(tenant), purged=purged)

    return await _queue_changed(parts, Question(tenant, "POST jobs/purge", key), act)


@router.get("/queues", summary="See the busiest queues", responses=problems())
async def list_queues(parts: PartsDep, _: Host, page_size: PageSize = DEFAULT_PAGE) -> Queues:
    """Of the tenants with jobs that wait or run, most of them first; there is one page."""
    backlogs = await parts.jobs.backlogs(limit=page_size)
    return Queues(tenants=[Queue.of(one) for one in backlogs], next_cursor=None)


async def _check_known(parts: Parts, tenant: str) -> None:
    """Refuses a tenant that nobody registered, where no default tier serves it.

    Raises:
        Problem: `unknown-tenant`.
        LedgerUnavailable: only PostgreSQL could tell, and it does not answer.
    """
    if not is_tenant_id(tenant):
        return  # nobody could
    entry = (await parts.directory.find((tenant,)))[tenant]
    if entry.standing is None:
        raise unknown_tenant(tenant)


async def _set_paused(
    parts: Parts,
    caller: Principal,
    question: Question,
    change: Callable[[str], Awaitable[bool]],
    action: str,
) -> Response:
    tenant = question.tenant
    await _check_known(parts, tenant)

    async def act() -> QueueState:
        before = await parts.jobs.paused(tenant)
        after = await change(tenant)
        if after != before:
            await _note(parts, caller, action, tenant)
        return QueueState(tenant=tenant, paused=after, purged=0)

    return await _queue_changed(parts, question, act)


async def _note(parts: Parts, caller: Principal, action: str, tenant: str, **detail: int) -> None:
    """Writes a line into the audit log, or, while PostgreSQL is away, into the sidecar's own.

    What was done stays done: it may be what helps in that outage.
    """
    try:
        await parts.ledger.note(actor=caller.actor, action=action, tenant=tenant, detail=detail)
    except LedgerUnavailable as exc:
        log.warning(
            "audit.not_written",
            actor=caller.actor,
            action=action,
            tenant=tenant,
            detail=detail,
            cause=str(exc),
        )


async def _queue_changed(
    parts: Parts, question: Question, act: Callable[[], Awaitable[QueueState]]
) -> Response:
    async def answer() -> Answer:
        return Answer(200, _JSON, (await act()).model_dump_json().encode())

    return _response(await answered_once(parts.jobs, question, answer))


def _response(answer: Answer) -> Response:
    return Response(answer.body, answer.status, dict(answer.headers), answer.content_type)
