"""What ids and names look like (docs/contract.md section 4)."""

import re

TENANT_PATTERN = "^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$"
NAME_PATTERN = "^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$"
"""Limits, resources and tiers."""

JOB_PATTERN = "^[A-Za-z0-9][A-Za-z0-9._:-]{0,199}$"
"""Ids of jobs, each its tenant's own."""

QUEUE_PATTERN = f"^(_system|_cron|{TENANT_PATTERN.strip('^$')})$"
"""Whose jobs there are: those of tenants, of the sidecar's own maintenance, and cron jobs."""

WINDOW_PATTERN = (
    "^(([1-9]|[1-9][0-9]{1,2}|1[0-3][0-9]{2}|14[0-3][0-9]|1440)m|([1-9]|1[0-9]|2[0-4])h)$"
)
"""How far back neighbours are looked at: up to a day, in minutes or hours."""

QUEUE_VERBS = ("pause", "resume", "purge")
"""No job can be called so: their paths would be those of the job."""

QUOTA_VERBS = ("consume", "release", "reserve")
"""No resource can be called so: their paths would be those of the resource."""

EXPECTED_TENANT = (
    "expected a tenant id: 1 to 128 letters, digits, '.', '_' or '-', "
    "beginning with a letter or digit"
)
EXPECTED_NAME = (
    "expected a name: 1 to 64 letters, digits, '.', '_' or '-', beginning with a letter or digit"
)
"""What to say to whoever sent something else."""

_tenant = re.compile(TENANT_PATTERN.rstrip("$"))
_name = re.compile(NAME_PATTERN.rstrip("$"))


def is_tenant_id(text: str) -> bool:
    """Whether `text` can be a tenant's id."""
    return _tenant.fullmatch(text) is not None


def is_name(text: str) -> bool:
    """Whether `text` can name a limit, a resource or a tier."""
    return _name.fullmatch(text) is not None
