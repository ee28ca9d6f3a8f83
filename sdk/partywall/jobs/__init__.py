"""Jobs: what a client can do with them, and what they answer."""

from partywall.jobs.handle import Job
from partywall.jobs.records import JobInfo, JobStatus, QueueState
from partywall.jobs.sync import SyncJob

__all__ = ["Job", "JobInfo", "JobStatus", "QueueState", "SyncJob"]
