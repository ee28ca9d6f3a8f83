"""Which limit and cost a request has, and what is not governed at all."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from partywall import ConfigurationError, Rule
from partywall.rules import Routes
from tests.unit.sdk.asgi import Sidecar, answering, http_scope, request, websocket_scope

DEFAULT = ("requests", 1)


def asked(*rules: Rule, path: str = "/", method: str = "GET", **more: Any) -> Any:
    routes = Routes(rules, (), "requests", 1)
    return routes.of(http_scope(path, method=method, **more))


def exempt(pattern: str, path: str, **more: Any) -> bool:
    return Routes((), [pattern], "requests", 1).of(http_scope(path, **more)) is None


def test_the_first_rule_that_matches_applies():
    rules = [Rule("/a/*", limit="first"), Rule("/a/b", limit="second"), Rule("*", cost=7)]
    assert asked(*rules, path="/a/b") == ("first", 1)
    assert asked(*rules, path="/c") == ("requests", 7)
    assert asked(*reversed(rules), path="/a/b") == ("requests", 7)


def test_without_a_matching_rule_the_middlewares_own_limit_and_cost_apply():
    assert asked(Rule("/a", limit="exports"), path="/b") == DEFAULT


@pytest.mark.parametrize(
    ("pattern", "path", "matches"),
    [
        ("/exports", "/exports", True),
        ("/exports", "/exports/", False),
        ("/exports/*", "/exports/", True),
        ("/exports/*", "/exports/2030/7", True),
        ("/exports/*", "/exports", False),
        ("/a/*/b", "/a/x/y/b", True),
        ("*.csv", "/x/y.csv", True),
        ("*", "/", True),
        ("/files/[ab]", "/files/a", False),
        ("/files/[ab]*", "/files/[ab]c", True),
        ("/really?", "/reallyx", False),
        ("/really?*", "/really?", True),
        ("/a.c", "/abc", False),
        ("/a*", "/a\n/b", True),
        ("/a", "/a\n", False),
    ],
)
def test_a_star_is_any_characters_and_nothing_else_is_special(pattern, path, matches):
    assert (asked(Rule(pattern, cost=2), path=path) == ("requests", 2)) is matches
    assert exempt(pattern, path) is matches


def test_a_long_path_cannot_make_a_pattern_slow():
    """Tried in every way this would take longer than the universe has."""
    path = "/" + "a/" * 20_000
    assert not exempt("/*a*a*a*a*a*a*a*b", path)


@given(st.text(max_size=20), st.text(max_size=20))
def test_any_path_matches_itself_and_its_beginning(begin, end):
    pattern = "/" + begin.replace("*", "")
    assert exempt(pattern, pattern)
    assert exempt(pattern + "*", pattern + end)


@pytest.mark.parametrize(
    ("methods", "method", "matches"),
    [
        (None, "DELETE", True),
        (["POST"], "POST", True),
        (["post"], "POST", True),
        (["POST", "PUT"], "GET", False),
        (("PUT",), "PUT", True),
        ({"GET"}, "HEAD", True),  # the same handler answers it
        (["HEAD"], "GET", False),
        (["POST"], "HEAD", False),
    ],
)
def test_a_rule_applies_to_its_methods(methods, method, matches):
    rule = Rule("/", methods=methods, cost=2)
    assert (asked(rule, method=method) == ("requests", 2)) is matches


def test_a_rule_with_methods_is_not_for_websockets():
    routes = Routes([Rule("/", methods=["GET"], cost=2), Rule("/", cost=3)], (), "requests", 1)
    assert routes.of(websocket_scope()) == ("requests", 3)


@pytest.mark.parametrize(
    ("root", "path", "seen"),
    [
        ("/api", "/api/exports", "/exports"),
        ("/api/", "/api/exports", "/exports"),
        ("/api", "/api", "/"),
        ("/api", "/exports", "/exports"),  # a server that leaves it out of the path
        ("/api", "/apiary", "/apiary"),
        ("", "/exports", "/exports"),
    ],
)
def test_paths_are_those_below_where_the_app_is_mounted(root, path, seen):
    assert asked(Rule(seen, cost=2), path=path, root_path=root) == ("requests", 2)
    assert exempt(seen, path, root_path=root)


def test_limit_and_cost_may_be_asked_of_each_request():
    routes = Routes(
        [Rule("/own", limit=lambda scope: "own", cost=lambda scope: 9)],
        (),
        lambda scope: scope["method"].lower(),
        lambda scope: len(scope["path"]),
    )
    assert routes.of(http_scope("/abc", method="PUT")) == ("put", 4)
    assert routes.of(http_scope("/own")) == ("own", 9)


@pytest.mark.parametrize("limit", ["", "a b", None, 5, b"requests", "x" * 65])
async def test_a_callable_that_gives_no_limit_is_an_error_and_not_a_denial(limit):
    app = Sidecar().governing(answering(), limit=lambda scope: limit)
    with pytest.raises(ConfigurationError, match="a limit's name"):
        await request(app)


@pytest.mark.parametrize("cost", [0, -1, 1.5, "1", None, True, 2**53])
async def test_a_callable_that_gives_no_cost_is_an_error_and_not_a_denial(cost):
    app = Sidecar().governing(answering(), cost=lambda scope: cost)
    with pytest.raises(ConfigurationError, match="a cost from 1"):
        await request(app)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"path": "exports"}, "beginning with / or *"),
        ({"path": ""}, "beginning with / or *"),
        ({"path": None}, "beginning with / or *"),
        ({"path": "/", "methods": "POST"}, "a list of methods"),
        ({"path": "/", "methods": []}, "a list of methods"),
        ({"path": "/", "methods": ["POST", 1]}, "a list of methods"),
        ({"path": "/", "methods": ["PO ST"]}, "a list of methods"),
        ({"path": "/", "methods": 5}, "a list of methods"),
        ({"path": "/", "limit": "a b"}, "a limit's name"),
        ({"path": "/", "cost": 0}, "a cost from 1"),
        ({"path": "/", "cost": False}, "a cost from 1"),
    ],
)
def test_a_rule_that_cannot_be_is_refused_with_what_was_expected(options, expected):
    with pytest.raises(ConfigurationError, match=expected.replace("*", r"\*")):
        Rule(**options)
