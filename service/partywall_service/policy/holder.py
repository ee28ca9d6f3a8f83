"""The policy in force: one reference, swapped whole."""

from collections.abc import Callable

from partywall_service.policy.model import Policy


class PolicyHolder:
    """Holds the policy that decisions are made by.

    A swap is one assignment, so a request sees the old policy or the new one, never a mixture.

    Attributes:
        current: the policy in force.
        errors: why the newest quotas.toml was refused, one line a fault; empty when it was taken.
    """

    def __init__(self, policy: Policy) -> None:
        self.current = policy
        self.errors: tuple[str, ...] = ()
        self._followers: list[Callable[[Policy], None]] = []

    def follow(self, follower: Callable[[Policy], None]) -> None:
        """Calls `follower` with every policy that comes into force from now on."""
        self._followers.append(follower)

    def swap(self, policy: Policy) -> None:
        """Puts `policy` in force."""
        self.current = policy
        self.errors = ()
        for follower in self._followers:
            follower(policy)
