"""Jobs as clients give and see them (docs/contract.md section 4, Jobs)."""

from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    PlainSerializer,
    ValidationInfo,
    field_validator,
)

from partywall.errors import InvalidRequest
from partywall.jobs.arguments import MAX_DEPTH, plain
from partywall_service.api.schemas import Instant
from partywall_service.names import JOB_PATTERN, QUEUE_VERBS
from partywall_workers.records import Backlog, JobRecord, Status
from partywall_workers.redis import MAX_DELAY

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def _no_verb(job_id: str | None) -> str | None:
    if job_id in QUEUE_VERBS:
        raise ValueError(f"expected an id other than {', '.join(QUEUE_VERBS)}; got {job_id!r}")
    return job_id


def _milliseconds(instant: datetime) -> str:
    return instant.isoformat(timespec="milliseconds").replace("+00:00", "Z")


Milliseconds = Annotated[datetime, PlainSerializer(_milliseconds, when_used="json")]
"""An instant as the queue knows it."""


class JobRequest(BaseModel):
    """A job to enqueue."""

    model_config = ConfigDict(
        extra="forbid",
        strict=True,
        frozen=True,
        json_schema_extra={
            "examples": [
                {"function": "send_email", "kwargs": {"to": "a@b.c"}, "job_id": "welcome-4711"}
            ]
        },
    )

    function: str = Field(min_length=1, max_length=200, description="As the workers call it.")
    args: list[Any] = Field([], description="What it is called with, after `ctx`.")
    kwargs: dict[str, Any] = Field({}, description="What it is called with by name.")
    job_id: Annotated[
        str | None,
        Field(pattern=JOB_PATTERN),
        AfterValidator(_no_verb),
    ] = Field(None, description="Its id among the tenant's jobs; left out, one is made.")
    defer_by: float | None = Field(
        None,
        ge=0,
        le=MAX_DELAY,
        allow_inf_nan=False,
        description="Seconds before which it does not start.",
    )
    defer_until: Instant = Field(None, description="Before when it does not start.")
    priority: int = Field(5, ge=0, le=9, description="Among the tenant's jobs; 9 first.")

    @field_validator("args", "kwargs")
    @classmethod
    def _carried(cls, given: Any, info: ValidationInfo) -> Any:  # noqa: ANN401 - any of JSON's
        try:
            return plain(given, info.field_name or "", MAX_DEPTH + 1)
        except InvalidRequest as exc:
            raise ValueError(str(exc)) from exc

    @field_validator("defer_until")
    @classmethod
    def _deferred_once(cls, instant: datetime | None, info: ValidationInfo) -> datetime | None:
        if instant is None:
            return None
        if info.data.get("defer_by") is not None:
            raise ValueError("expected either this or defer_by; got both")
        if instant > datetime.now(UTC) + timedelta(seconds=MAX_DELAY):
            raise ValueError(f"expected an instant within a hundred years; got {instant}")
        return instant


class Job(BaseModel):
    """A job as it stands."""

    model_config = ConfigDict(frozen=True)

    job_id: str
    tenant: str
    function: str
    status: Status
    priority: int
    attempts: int = Field(description="How often it was started.")
    queued_at: Milliseconds
    run_at: Milliseconds = Field(description="Before when it does not start.")
    started_at: Milliseconds | None = Field(description="Of its last try.")
    finished_at: Milliseconds | None
    error: str | None = Field(description="What it failed with last.")
    result: Any = Field(description="What it returned.")
    traceback: str | None = Field(
        None,
        exclude_if=lambda it: it is None,
        description="Of `error`, for admin and host tokens; left out where there is none.",
    )

    @classmethod
    def of(cls, record: JobRecord, *, traceback: bool = True) -> Self:
        """A record as clients see it, with or without its traceback."""
        return cls(
            job_id=record.job_id,
            tenant=record.tenant,
            function=record.function,
            status=record.status,
            priority=record.priority,
            attempts=record.attempts,
            queued_at=_instant(record.queued_at),
            run_at=_instant(record.run_at),
            started_at=None if record.started_at is None else _instant(record.started_at),
            finished_at=None if record.finished_at is None else _instant(record.finished_at),
            error=record.error,
            result=record.result,
            traceback=record.traceback if traceback else None,
        )


class Jobs(BaseModel):
    """A page of one tenant's jobs, newest first."""

    model_config = ConfigDict(frozen=True)

    jobs: list[Job]
    next_cursor: str | None


class QueueState(BaseModel):
    """A tenant's queue after it was paused, resumed or purged."""

    model_config = ConfigDict(frozen=True)

    tenant: str
    paused: bool
    purged: int = Field(description="How many waiting jobs this cancelled.")


class Queue(BaseModel):
    """A tenant's jobs, in numbers; counts of events are since the queue was made."""

    model_config = ConfigDict(frozen=True, from_attributes=True)

    tenant: str
    tier: str | None
    lane: str = Field(description="Which workers' queue they wait in.")
    weight: float
    queued: int = Field(description="Waiting, and due.")
    deferred: int = Field(description="Waiting for an instant, retries too.")
    running: int
    dead: int
    oldest_wait: float = Field(description="Seconds that the longest waiting of the due ones has.")
    concurrency: int | None
    max_queued: int | None
    paused: bool
    held: str | None = Field(description="Why none may start: `suspended`, for example.")
    claims: int = Field(description="Starts.")
    retries: int
    died: int
    expired: int = Field(description="Leases that ran out: a worker died or hung.")

    @classmethod
    def of(cls, backlog: Backlog) -> Self:
        """A backlog as clients see it."""
        return cls.model_validate(backlog)


class Queues(BaseModel):
    """The busiest tenants, most jobs first."""

    model_config = ConfigDict(frozen=True)

    tenants: list[Queue]
    next_cursor: None = Field(description="There are no further pages.")


def _instant(milliseconds: int) -> datetime:
    return _EPOCH + timedelta(milliseconds=milliseconds)
