"""The policy in force: one reference, swapped whole."""

from dataclasses import dataclass

from partywall_service.policy.model import Policy


@dataclass(slots=True)
class PolicyHolder:
    """Holds the policy that decisions are made by.

    A swap is one assignment, so a request sees the old policy or the new one, never a mixture.

    Attributes:
        current: the policy in force.
    """

    current: Policy
