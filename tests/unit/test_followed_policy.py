"""quotas.toml as a worker follows it."""

from pathlib import Path

import pytest

from partywall_service.maintenance.policy import FollowedPolicy
from partywall_service.policy.errors import PolicyError


def test_it_is_read_anew_when_it_has_changed_and_the_last_good_one_stays(tmp_path: Path) -> None:
    path = tmp_path / "quotas.toml"
    policy = FollowedPolicy(path)
    with pytest.raises(PolicyError):
        _ = policy.current
    path.write_text("[tiers.free]\nweight = 2\n")
    first = policy.current
    assert first.tiers["free"].weight == 2
    assert policy.current is first
    path.write_text("[tiers.free]\nweight = 'heavy'\n")
    assert policy.current is first
    path.unlink()
    assert policy.current is first
    path.write_text("[tiers.free]\nweight = 31\n")
    assert policy.current.tiers["free"].weight == 31
