"""What keeps a running sidecar true: policies applied or refused, changes heard from others."""

from pathlib import Path
from time import time

import structlog

from partywall_service.api.auth import Authenticator
from partywall_service.directory import Directory
from partywall_service.jobs.keeper import Keeper
from partywall_service.ledger import Ledger
from partywall_service.ledger.changes import Change
from partywall_service.ledger.errors import LedgerUnavailable
from partywall_service.ledger.listener import listen
from partywall_service.metrics import Metrics
from partywall_service.policy.errors import PolicyError, PolicyFault
from partywall_service.policy.holder import PolicyHolder
from partywall_service.policy.model import Policy
from partywall_service.policy.watch import watch_policy

log = structlog.get_logger()


class PolicyUpkeep:
    """Applies what quotas.toml says, as long as tenants can live with it.

    Args:
        path: the policy file.
        policy: what decisions are made by.
        ledger: which tiers tenants have.
        metrics: told what was taken and refused.
        keeper: told that another policy is in force.
    """

    def __init__(
        self,
        path: Path,
        policy: PolicyHolder,
        ledger: Ledger,
        metrics: Metrics,
        keeper: Keeper | None,
    ) -> None:
        self._path = path
        self._policy = policy
        self._ledger = ledger
        self._metrics = metrics
        self._keeper = keeper
        metrics.policy_loaded.set(time())

    async def watch(self) -> None:
        """Runs until cancelled."""
        await watch_policy(self._path, self._policy.current, self._apply, self._reject)

    async def check_tiers(self) -> None:
        """Says which tiers tenants have that the policy in force lacks."""
        for tier, tenants in (await self._tiers_without(self._policy.current)).items():
            log.error("policy.tier_missing", tier=tier, tenants=tenants, path=str(self._path))

    async def _apply(self, new: Policy) -> None:
        current = self._policy.current
        dropped = {
            tier: tenants
            for tier, tenants in (await self._tiers_without(new)).items()
            if tier in current.tiers  # one that was gone before must not hold up what helps
        }
        if dropped:
            raise PolicyError(
                *(
                    PolicyFault(
                        str(self._path),
                        f"tiers.{tier}",
                        f"expected to stay while tenants have it ({tenants} do); move them first",
                    )
                    for tier, tenants in dropped.items()
                )
            )
        self._policy.take(new)
        self._metrics.policy_loaded.set(time())
        if self._keeper is not None:
            self._keeper.everyone()
        log.info("policy.applied", tiers=list(new.tiers), digest=new.digest[:12])

    def _reject(self, error: PolicyError) -> None:
        self._metrics.policy_refused.inc()
        faults = [str(fault) for fault in error.errors]
        self._policy.refuse(faults)
        log.error("policy.refused", errors=faults, kept=self._policy.current.digest[:12])

    async def _tiers_without(self, policy: Policy) -> dict[str, int]:
        """Tiers that tenants have and `policy` lacks, with how many have it."""
        try:
            return await self._ledger.missing_tiers(policy.tiers)
        except LedgerUnavailable as exc:
            # An operator may well have to raise a limit while PostgreSQL is away.
            log.warning("policy.tiers_unchecked", cause=str(exc))
            return {}


async def heed_changes(
    database_url: str,
    directory: Directory,
    authenticator: Authenticator,
    keeper: Keeper | None,
    metrics: Metrics,
) -> None:
    """Forgets what any sidecar changed, and has its job policies written, until cancelled."""

    def changed(change: Change) -> None:
        if change.kind == "tenant":
            directory.forget(change.id)
            if keeper is not None:
                keeper.changed(change.id)
        else:
            authenticator.forget(change.id)

    def connected() -> None:
        # Notices may have been missed while it was not.
        directory.forget_all()
        authenticator.clear()
        if keeper is not None:
            keeper.everyone()
        metrics.database_up.set(1)

    def lost() -> None:
        metrics.database_up.set(0)

    await listen(database_url, changed, connected, lost)
