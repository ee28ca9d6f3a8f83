"""What applies to which route: rules, and paths that are not governed at all."""

import re
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from fnmatch import translate
from typing import Any

from partywall.errors import ConfigurationError
from partywall.protocol import LIMIT_PATTERN, MAX_AMOUNT
from partywall.responses import Scope

_METHOD = re.compile("[A-Za-z][A-Za-z0-9_-]*")

LimitOf = str | Callable[[Scope], str]
CostOf = int | Callable[[Scope], int]


@dataclass(frozen=True, slots=True)
class Rule:
    """What requests to some paths are charged; the first rule that matches applies.

    Attributes:
        path: as the app sees it, with `*` for any run of characters: `/exports/*`.
        methods: HTTP methods; None for all, and for WebSockets. GET means HEAD too: frameworks
            answer it from the same handler, so it must not be a way around.
        limit: the limit's name, or a callable of the ASGI scope; None for the middleware's own.
        cost: a whole number from 1, or a callable of the scope; None for the middleware's own.
    """

    path: str
    methods: Collection[str] | None = None
    limit: LimitOf | None = None
    cost: CostOf | None = None

    def __post_init__(self) -> None:
        check_path(self.path)
        if self.methods is not None:
            check_methods(self.methods)
        if self.limit is not None:
            check_limit(self.limit)
        if self.cost is not None:
            check_cost(self.cost)


class Routes:
    """Which limit and cost a request has.

    Args:
        rules: asked in order.
        exempt: paths that are not governed, each a path or a pattern with `*`.
        limit: for requests without a rule.
        cost: for requests without a rule.

    Attributes:
        always: what every request has; None where requests differ.

    Raises:
        ConfigurationError: for what cannot be.
    """

    def __init__(
        self, rules: Iterable[Rule], exempt: Iterable[str], limit: LimitOf, cost: CostOf
    ) -> None:
        check_limit(limit)
        check_cost(cost)
        paths = _listed("exempt", "paths", exempt)
        for path in paths:
            check_path(path)
        self._exempt = frozenset(path for path in paths if "*" not in path)
        patterns = [_pattern(path) for path in paths if "*" in path]
        self._exempt_pattern = re.compile("|".join(patterns)) if patterns else None
        self._rules = []
        for rule in _listed("rules", "Rule", rules):
            if not isinstance(rule, Rule):
                raise ConfigurationError(f"expected rules to be a list of Rule; got {rule!r} in it")
            self._rules.append(
                (
                    re.compile(_pattern(rule.path)),
                    None if rule.methods is None else _covered(rule.methods),
                    limit if rule.limit is None else rule.limit,
                    cost if rule.cost is None else rule.cost,
                )
            )
        self._limit = limit
        self._cost = cost
        self.always: tuple[str, int] | None = None
        if isinstance(limit, str) and isinstance(cost, int) and not paths and not self._rules:
            self.always = (limit, cost)

    def of(self, scope: Scope) -> tuple[str, int] | None:
        """The limit and the cost of a request; None when it is exempt.

        Raises:
            ConfigurationError: a callable of the app's returned what can be none.
        """
        path: str = scope["path"]
        root: str = scope.get("root_path", "").rstrip("/")
        # Some servers leave root_path out of path, so it is cut off only where it is there.
        if root and (path == root or path.startswith(root + "/")):
            path = path[len(root) :] or "/"
        if path in self._exempt or (
            self._exempt_pattern is not None and self._exempt_pattern.match(path)
        ):
            return None
        limit, cost = self._limit, self._cost
        for pattern, methods, its_limit, its_cost in self._rules:
            if (methods is None or scope.get("method") in methods) and pattern.match(path):
                limit, cost = its_limit, its_cost
                break
        if not isinstance(limit, str):
            limit = limit(scope)
            check_limit(limit, called=True)
        if not isinstance(cost, int):
            cost = cost(scope)
            check_cost(cost, called=True)
        return limit, cost


def check_path(path: object) -> None:
    """Refuses what can match no request's path.

    Raises:
        ConfigurationError: with what was expected.
    """
    if not (isinstance(path, str) and path.startswith(("/", "*"))):
        raise ConfigurationError(f"expected a path beginning with / or *; got {path!r}")


def check_methods(methods: object) -> None:
    """Refuses what is no list of HTTP methods.

    Raises:
        ConfigurationError: with what was expected.
    """
    if (
        isinstance(methods, str)
        or not isinstance(methods, Collection)
        or not methods
        or not all(isinstance(method, str) and _METHOD.fullmatch(method) for method in methods)
    ):
        raise ConfigurationError(
            f"expected a list of methods such as ['GET', 'POST'], or None for all; got {methods!r}"
        )


def check_limit(limit: object, *, called: bool = False) -> None:
    """Refuses what can be no limit's name.

    Raises:
        ConfigurationError: with what was expected.
    """
    if callable(limit) and not called:
        return
    if not (isinstance(limit, str) and LIMIT_PATTERN.fullmatch(limit)):
        raise ConfigurationError(
            "expected a limit's name: 1 to 64 letters, digits, '.', '_' or '-', beginning with a "
            f"letter or digit; got {limit!r}"
        )


def check_cost(cost: object, *, called: bool = False) -> None:
    """Refuses what can be no cost.

    Raises:
        ConfigurationError: with what was expected.
    """
    if callable(cost) and not called:
        return
    if not (type(cost) is int and 1 <= cost <= MAX_AMOUNT):
        raise ConfigurationError(f"expected a cost from 1 to {MAX_AMOUNT}; got {cost!r}")


def _listed(name: str, what: str, items: object) -> tuple[Any, ...]:
    if isinstance(items, str) or not isinstance(items, Iterable):
        raise ConfigurationError(f"expected {name} to be a list of {what}; got {items!r}")
    return tuple(items)


def _pattern(path: str) -> str:
    """A regular expression in which `*` alone is special, in linear time on any path."""
    return translate(re.sub("[?[]", r"[\g<0>]", path))


def _covered(methods: Collection[str]) -> frozenset[str]:
    named = frozenset(method.upper() for method in methods)
    return named | {"HEAD"} if "GET" in named else named
