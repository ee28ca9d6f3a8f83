"""Usage as rows of a spreadsheet."""

from typing import Any

from partywall_service.api.usage_schemas import TenantInPeriod
from partywall_service.policy.model import Policy
from partywall_service.usage.meters import LIMIT_OUTCOMES, shown
from partywall_service.usage.reading import UsagePoint
from partywall_service.usage.reports import TenantReport

POINT_COLUMNS = ("start", "meter", "value")

_ABOUT = ("tenant", "name", "tier", "status")
_REQUESTS = ("in_flight_seconds", "2xx", "3xx", "4xx", "5xx")
_JOBS = ("started", "succeeded", "failed", "run_seconds", "wait_seconds")
_QUOTA = ("used", "limit", "days_until_full")


def point_row(point: UsagePoint) -> list[object]:
    """A point under `POINT_COLUMNS`."""
    return [point.start, point.meter, shown(point.meter, point.value)]


def report_columns(policy: Policy) -> list[str]:
    """The columns of the report: what every tenant has, then the policy's limits and resources."""
    return [
        *_ABOUT,
        *LIMIT_OUTCOMES,
        "limits_hit",
        *(f"requests.{one}" for one in _REQUESTS),
        *(f"jobs.{one}" for one in _JOBS),
        *(f"limits.{name}.{one}" for name in sorted(policy.limit_names) for one in LIMIT_OUTCOMES),
        *(f"quotas.{name}.{one}" for name in policy.resources for one in _QUOTA),
    ]


def report_row(report: TenantReport, policy: Policy) -> list[object]:
    """A tenant under `report_columns`. What the policy names no more is in the sums alone."""
    one: dict[str, Any] = TenantInPeriod.of(report).model_dump()
    limits = {limit["limit"]: limit for limit in one["limits"]}
    quotas = {quota["resource"]: quota for quota in one["quotas"]}
    return [
        *(one[column] for column in (*_ABOUT, *LIMIT_OUTCOMES, "limits_hit")),
        *(one["requests"][column] for column in _REQUESTS),
        *(one["jobs"][column] for column in _JOBS),
        *(
            limits.get(name, {}).get(column, 0)
            for name in sorted(policy.limit_names)
            for column in LIMIT_OUTCOMES
        ),
        *(quotas.get(name, {}).get(column) for name in policy.resources for column in _QUOTA),
    ]
