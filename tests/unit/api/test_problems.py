"""Problems, as they are written."""

import json

import pytest

from partywall_service.api.problems import PROBLEMS, Problem, invalid


@pytest.mark.parametrize("slug", PROBLEMS)
def test_a_problem_has_what_rfc_9457_names(slug: str) -> None:
    document = json.loads(Problem(slug, "because").body())
    status, title = PROBLEMS[slug]
    assert document == {
        "type": f"urn:partywall:problem:{slug}",
        "title": title,
        "status": status,
        "detail": "because",
    }


def test_an_outage_says_when_to_come_back() -> None:
    assert Problem("unavailable", "x").headers == {"Retry-After": "1"}
    assert Problem("unavailable", "x", headers={"Retry-After": "7"}).headers["Retry-After"] == "7"


def test_an_unauthenticated_caller_is_told_how() -> None:
    assert Problem("unauthenticated", "x").headers == {"WWW-Authenticate": "Bearer"}


def test_a_gateway_may_get_another_status() -> None:
    problem = Problem("forbidden", "x", status=401)
    assert problem.status == json.loads(problem.body())["status"] == 401


def test_an_invalid_field_is_named_twice_once_for_people_and_once_for_programs() -> None:
    problem = invalid("tier", "expected one of free, pro; got 'x'")
    assert problem.detail == "tier: expected one of free, pro; got 'x'"
    assert problem.errors == [{"field": "tier", "reason": "expected one of free, pro; got 'x'"}]
