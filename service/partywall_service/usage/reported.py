"""What SDK processes report of their own decisions and requests."""

from collections.abc import Iterable, Sequence

import structlog
from msgspec.structs import replace

from partywall.protocol import TenantUsage, UsageReport
from partywall_service.directory import Directory, Standing
from partywall_service.names import EXPECTED_TENANT, is_tenant_id
from partywall_service.usage.adding import Adder
from partywall_service.usage.meters import REPORTED

OLDEST = 86_400
"""Seconds: of older counts nobody remembers whether they were added, or their tenant erased."""

MOST = 10**15
"""What a meter may rise by in one report: as microseconds, thirty years in flight. Sums of it stay
far below what Redis and PostgreSQL can hold, whatever a process sends."""

log = structlog.get_logger()


class InvalidReport(ValueError):
    """A report that cannot be; nothing of it was added.

    Attributes:
        field: where in the report, such as `usage[3].tenant`.
    """

    def __init__(self, field: str, reason: str) -> None:
        super().__init__(reason)
        self.field = field


class Reported:
    """Adds reports to the shared counts, each once, however often it is sent.

    Args:
        directory: who is known.
        adder: does it.
    """

    def __init__(self, directory: Directory, adder: Adder) -> None:
        self._directory = directory
        self._adder = adder

    async def apply(self, report: UsageReport) -> int:
        """How many of its tenants are counted; not who is unknown, or was erased since.

        Raises:
            InvalidReport: of a tenant or a meter; then nothing was added.
            LedgerUnavailable: a tenant is not known here and cannot be read; nothing was added.
            StoreError: some of it may be added; the same report again adds the rest.
        """
        _check(report)
        if report.age > OLDEST:
            log.warning("usage.too_old", instance=report.instance, age=report.age)
            return 0
        known = await self._known(report.usage)
        return await self._adder.add(replace(report, usage=known)) if known else 0

    async def _known(self, usage: Sequence[TenantUsage]) -> list[TenantUsage]:
        standings: dict[str, Standing | None] = {}
        missing = []
        for one in usage:
            entry = self._directory.get(one.tenant)
            if entry is None:
                missing.append(one.tenant)
            else:
                standings[one.tenant] = entry.standing
        if missing:
            for tenant, entry in (await self._directory.find(missing)).items():
                standings[tenant] = entry.standing
        return [one for one in usage if standings[one.tenant] is not None]


def _check(report: UsageReport) -> None:
    if report.instance.endswith("\n"):  # which the pattern of its type lets through
        raise InvalidReport("instance", "expected no line end")
    if not all(map(_is_reported, _meters(report))):
        place, meter = next(
            (place, meter)
            for place, one in enumerate(report.usage)
            for meter in one.meters
            if not _is_reported(meter)
        )
        raise InvalidReport(
            f"usage[{place}].meters",
            f"expected limits.NAME.admitted, requests.2xx and their like; got {meter!r}",
        )
    for place, one in enumerate(report.usage):
        if not is_tenant_id(one.tenant):
            raise InvalidReport(f"usage[{place}].tenant", EXPECTED_TENANT)
        for meter, rise in one.meters.items():
            if rise > MOST:
                raise InvalidReport(
                    f"usage[{place}].meters.{meter}", f"expected at most {MOST}; got {rise}"
                )


def _meters(report: UsageReport) -> Iterable[str]:
    """Each that it names, once: of all the tenants they are the same few."""
    return {meter for one in report.usage for meter in one.meters}


def _is_reported(meter: str) -> bool:
    return REPORTED.fullmatch(meter) is not None
