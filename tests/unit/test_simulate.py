"""A log replayed in its own time."""

import random
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from partywall_service.policy.model import Limit, Rate
from partywall_service.simulate import Report, Simulation, Tally, tenant_from

SAMPLE = Path(__file__).parents[1] / "data" / "access.log"
START = 1_774_742_400


def _line(host: str, at: int, user: str = "-") -> str:
    stamp = datetime.fromtimestamp(at, UTC).strftime("%d/%b/%Y:%H:%M:%S +0000")
    return f'{host} - {user} [{stamp}] "GET / HTTP/1.1" 200 1'


def _simulate(lines: list[str], *rates: Rate, by: str = "host", enforce: bool = True) -> Report:
    simulation = Simulation(Limit("requests", rates, enforce=enforce), tenant_from(by))
    for line in lines:
        simulation.take(line)
    return simulation.decide()


def test_each_tenant_has_its_own_window() -> None:
    lines = [_line(host, START + n // 10) for n in range(150) for host in ("a", "b")]
    lines += [_line("quiet", START)]
    report = _simulate(lines, Rate(100, 60))
    assert report.tenants == (
        Tally("a", requests=150, admitted=100),
        Tally("b", requests=150, admitted=100),
        Tally("quiet", requests=1, admitted=1),
    )


def test_room_comes_back_in_the_logs_own_time() -> None:
    lines = [_line("a", START)] * 3 + [_line("a", START + 30)] + [_line("a", START + 120)] * 3
    assert _simulate(lines, Rate(2, 60)).admitted == 4


def test_every_window_must_have_room() -> None:
    lines = [_line("a", START + 10 * n) for n in range(12)]
    assert _simulate(lines, Rate(1, 5), Rate(6, 3600)).admitted == 6


def test_without_rates_everything_is_admitted() -> None:
    report = _simulate([_line("a", START)] * 1000)
    assert (report.admitted, report.denied) == (1000, 0)


def test_an_observed_limit_shows_what_it_would_deny() -> None:
    assert _simulate([_line("a", START)] * 3, Rate(1, 60), enforce=False).denied == 2


@given(
    offsets=st.lists(st.integers(0, 300), max_size=60),
    quota=st.integers(1, 10),
    seed=st.randoms(use_true_random=False),
)
def test_the_order_of_lines_changes_nothing(
    offsets: list[int], quota: int, seed: random.Random
) -> None:
    lines = [_line("a", START + offset) for offset in offsets]
    shuffled = seed.sample(lines, len(lines))
    assert _simulate(shuffled, Rate(quota, 60)) == _simulate(lines, Rate(quota, 60))


def test_a_line_written_late_is_decided_when_it_began() -> None:
    """In the file's order the first minute's second request would be charged to the next one."""
    lines = [_line("a", START), _line("a", START + 70), _line("a", START + 1)]
    assert _simulate(lines, Rate(1, 60)).admitted == 2
    assert _simulate(lines, Rate(2, 60)).admitted == 3


def test_tenants_are_ordered_by_denied_then_requests_then_name() -> None:
    lines = [_line("z", START)] * 4 + [_line("y", START)] * 4 + [_line("m", START + 900)]
    lines += [_line("few", START + 90 * n) for n in range(3)]
    lines += [_line("many", START + 90 * n) for n in range(6)]
    order = [tally.tenant for tally in _simulate(lines, Rate(2, 60)).tenants]
    assert order == ["y", "z", "many", "few", "m"]


def test_the_sample_by_host_counts_every_line() -> None:
    lines = SAMPLE.read_text().splitlines()
    report = _simulate(lines, Rate(3, 60))
    assert report.as_dict() == {
        "requests": 11,
        "admitted": 9,
        "denied": 2,
        "skipped_lines": 4,
        "tenants": [
            {"tenant": "192.0.2.1", "requests": 5, "admitted": 3, "denied": 2},
            {"tenant": "192.0.2.9", "requests": 3, "admitted": 3, "denied": 0},
            {"tenant": "2001:db8::7", "requests": 1, "admitted": 1, "denied": 0},
            {"tenant": "::1", "requests": 1, "admitted": 1, "denied": 0},
            {"tenant": "shop.example", "requests": 1, "admitted": 1, "denied": 0},
        ],
    }
    assert report.requests + report.skipped_lines == len(lines)
    assert report.last - report.first == 7  # type: ignore[operator] # there are requests


@pytest.mark.parametrize(
    ("spec", "tenants"),
    [
        ("user", {"ada": 2, '"frank smith"': 1}),
        (r"/t/(\w+)/", {"acme": 3, "globex": 1}),
        (r"(GET|POST) /t/(?P<tenant>\w+)/", {"acme": 3, "globex": 1}),
        (r"HTTP/\d", {"HTTP/1": 7, "HTTP/2": 1}),
        (r"/t/acme/(orders)?", {"orders": 2}),  # a group that took no part names nobody
        (r"(host)", {}),
    ],
)
def test_the_tenant_is_told_as_asked_and_lines_of_nobody_are_skipped(
    spec: str, tenants: dict[str, int]
) -> None:
    lines = [line for line in SAMPLE.read_text().splitlines() if "OPTIONS" not in line]
    report = _simulate(lines, Rate(100, 60), by=spec)
    assert {tally.tenant: tally.requests for tally in report.tenants} == tenants
    assert report.skipped_lines == len(lines) - sum(tenants.values())


@pytest.mark.parametrize("spec", ["(", "*", "(a)(b)", "(?P<other>a)(b)"])
def test_a_tenant_that_cannot_be_told_is_refused(spec: str) -> None:
    with pytest.raises(ValueError, match="expected"):
        tenant_from(spec)


def test_progress_adds_up() -> None:
    simulation = Simulation(Limit("requests", (Rate(1, 60),)), tenant_from("host"))
    for n in range(2500):
        simulation.take(_line("a" if n % 5 else "b", START + n))
    seen: list[int] = []
    simulation.decide(seen.append)
    assert (sum(seen), simulation.requests, max(seen)) == (2500, 2500, 1000)
