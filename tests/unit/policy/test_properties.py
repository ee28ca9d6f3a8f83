"""What holds for every quotas.toml, good or bad."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from partywall_service.policy.loader import PolicyError, load_policy, parse_policy
from partywall_service.policy.model import Policy
from tests.unit.policy.toml import written

SAMPLE = (Path(__file__).parent / "corpus" / "good" / "contract.toml").read_text()

_amounts = st.integers(-1, 10**6) | st.sampled_from(["unlimited", "1 GiB", "2.5 kB"])
_rates = st.sampled_from(["5/hour", "unlimited", "10/second;100/minute", ["7/day", "2/minute"]])
_limits = _rates | st.fixed_dictionaries(
    {"rate": _rates},
    optional={"enforce": st.booleans(), "on_outage": st.sampled_from(["local", "open", "closed"])},
)
_quotas = _amounts | st.fixed_dictionaries(
    {"limit": _amounts}, optional={"per": st.sampled_from(["day", "week", "month"])}
)
_resources = st.sampled_from(["users", "storage", "emails"])
_tiers = st.fixed_dictionaries(
    {},
    optional={
        "weight": st.integers(1, 9),
        "features": st.lists(st.sampled_from(["sso", "audit", "api"]), unique=True),
        "limits": st.dictionaries(st.sampled_from(["requests", "exports", "a.b"]), _limits),
        "quotas": st.dictionaries(_resources, _quotas),
        "jobs": st.fixed_dictionaries(
            {},
            optional={
                "concurrency": st.integers(-1, 9),
                "max_queued": st.integers(-1, 99),
                "rate": _rates,
                "queue": st.sampled_from(["default", "dedicated"]),
            },
        ),
    },
)


@st.composite
def families(draw: st.DrawFn) -> dict[str, dict[str, Any]]:
    """Tiers, some of which extend one that stands before them."""
    tiers: dict[str, dict[str, Any]] = {}
    for number in range(draw(st.integers(1, 6))):
        tier = draw(_tiers)
        if tiers and draw(st.booleans()):
            tier = tier | {"extends": draw(st.sampled_from(sorted(tiers)))}
        tiers[f"t{number}"] = tier
    return tiers


def _without_order(policy: Policy) -> tuple[object, ...]:
    return dict(policy.tiers), policy.default_tier, dict(policy.resources)


@given(tiers=families(), data=st.data())
def test_the_order_of_tiers_changes_nothing_but_their_order(
    tiers: dict[str, dict[str, Any]], data: st.DataObject
) -> None:
    order = data.draw(st.permutations(sorted(tiers)))
    shuffled = {name: tiers[name] for name in order}
    one, other = (parse_policy(written({"tiers": some}), "test") for some in (tiers, shuffled))
    assert _without_order(one) == _without_order(other)
    assert list(other.tiers) == order


@given(tiers=families())
def test_extending_is_the_same_as_writing_it_all_out(tiers: dict[str, dict[str, Any]]) -> None:
    out: dict[str, dict[str, Any]] = {}
    for name, tier in tiers.items():
        base = out.get(tier.get("extends", ""), {})
        own = {key: value for key, value in tier.items() if key != "extends"}
        merged = {key: base.get(key, {}) | own.get(key, {}) for key in ("limits", "quotas", "jobs")}
        out[name] = base | own | merged
    short, long = (parse_policy(written({"tiers": some}), "test") for some in (tiers, out))
    assert _without_order(short) == _without_order(long)


# Words of the format, so that much of what is made up gets past the first check, and anything.
_words = st.sampled_from(
    [
        *("default_tier", "tiers", "resources", "free", "pro", "extends", "weight", "features"),
        *("limits", "quotas", "jobs", "requests", "users", "rate", "enforce", "on_outage"),
        *("limit", "per", "durable", "concurrency", "max_queued", "queue", "month", "unlimited"),
        *("5/hour", "1GiB", "-1"),
    ]
)
_texts = _words | st.text(max_size=20)
_scalars = (
    _texts
    | st.integers()
    | st.sampled_from([1 << 63, -1])
    | st.floats()
    | st.booleans()
    | st.dates()
    | st.times()
    | st.datetimes()
)
_anything = st.recursive(
    _scalars,
    lambda inside: st.lists(inside, max_size=4) | st.dictionaries(_texts, inside, max_size=6),
    max_leaves=25,
)


def _faults(text: str) -> list[str]:
    """What is told of a text; any exception but PolicyError fails the test."""
    try:
        policy = parse_policy(text, "quotas.toml")
    except PolicyError as exc:
        error = exc
    else:
        assert policy.tiers
        return []
    lines = [str(fault) for fault in error.errors]
    assert lines
    assert str(error).splitlines() == lines  # whatever the file says, a fault is one line
    assert all(line.isprintable() and len(line) < 1000 for line in lines)
    assert all(line.startswith("quotas.toml: ") for line in lines)
    return lines


@given(document=st.dictionaries(_texts, _anything, max_size=5))
def test_no_structure_ends_in_a_traceback(document: Mapping[str, Any]) -> None:
    _faults(written(document))


@given(tier=st.dictionaries(_words, _anything, max_size=6), name=_texts, rest=_anything)
def test_no_tier_ends_in_a_traceback(tier: Mapping[str, Any], name: str, rest: object) -> None:
    _faults(written({"tiers": {name: tier, "pro": rest}, "resources": rest}))


@given(limits=_anything, quotas=_anything, jobs=_anything, resource=_anything)
def test_no_value_of_a_tier_ends_in_a_traceback(
    limits: object, quotas: object, jobs: object, resource: object
) -> None:
    tier = {"limits": {"a": limits}, "quotas": {"b": quotas}, "jobs": {"rate": jobs}}
    _faults(written({"tiers": {"c": tier}, "resources": {"b": resource}}))


@given(start=st.integers(0, len(SAMPLE)), length=st.integers(0, 40), instead=st.text(max_size=10))
def test_no_slip_of_the_hand_ends_in_a_traceback(start: int, length: int, instead: str) -> None:
    _faults(SAMPLE[:start] + instead + SAMPLE[start + length :])


@given(content=st.binary(max_size=200))
def test_no_bytes_end_in_a_traceback(
    content: bytes, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.getbasetemp() / "any-bytes.toml"
    path.write_bytes(content)
    with pytest.raises(PolicyError):
        load_policy(path)


@pytest.mark.parametrize(
    "text",
    [
        "default_tier" + ".a" * 3000 + " = 1",
        "tiers.free.limits" + ".a" * 3000 + " = 1",
        "tiers.free.weight = 0x" + "f" * 9000,
        "default_tier = 0x" + "f" * 9000,
        "tiers.free.features = [0x" + "f" * 9000 + "]",
        'default_tier = "' + "x" * 99_999 + '"\n[tiers.' + "x" * 100_000 + "]",
        "tiers." + "x" * 100_000 + " = 1",
        'tiers."' + "ü" * 100_000 + '" = 1',
        'tiers."\\u0085\\u001b[31m\\u2028" = 1',
        'default_tier = "a"\n[tiers."\\u0085\\u001b[31m\\u2028"]',
    ],
    ids=range(10),
)
def test_what_is_hard_to_show_is_shown(text: str) -> None:
    assert _faults(text)
