"""Fair per-tenant job queues on arq: what a host app's workers are made of."""

from partywall_workers.errors import (
    GiveBack,
    GiveUp,
    InvalidJob,
    JobConflict,
    JobError,
    NotJson,
    QueueFull,
    QueueUnavailable,
    TenantErased,
    TooLarge,
    UnknownFunction,
    UnknownJob,
)
from partywall_workers.job import JobOptions, job
from partywall_workers.logs import JobContextFilter
from partywall_workers.policy import JobPolicy
from partywall_workers.queue import FairQueue
from partywall_workers.records import Backlog, Enqueued, JobRecord
from partywall_workers.redis import FairRedis
from partywall_workers.serial import RemoteFailure
from partywall_workers.settings import FairWorkerSettings, create_worker, run_worker
from partywall_workers.worker import FairWorker

__all__ = [
    "Backlog",
    "Enqueued",
    "FairQueue",
    "FairRedis",
    "FairWorker",
    "FairWorkerSettings",
    "GiveBack",
    "GiveUp",
    "InvalidJob",
    "JobConflict",
    "JobContextFilter",
    "JobError",
    "JobOptions",
    "JobPolicy",
    "JobRecord",
    "NotJson",
    "QueueFull",
    "QueueUnavailable",
    "RemoteFailure",
    "TenantErased",
    "TooLarge",
    "UnknownFunction",
    "UnknownJob",
    "create_worker",
    "job",
    "run_worker",
]
