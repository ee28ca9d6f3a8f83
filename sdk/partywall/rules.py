"""What applies to which route: rules, and paths that are not governed at all."""

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from fnmatch import translate

from partywall.errors import ConfigurationError
from partywall.protocol import LIMIT_PATTERN, MAX_AMOUNT
from partywall.responses import Scope

LimitOf = str | Callable[[Scope], str]
CostOf = int | Callable[[Scope], int]


@dataclass(frozen=True, slots=True)
class Rule:
    """What requests to some paths are charged; the first rule that matches applies.

    Attributes:
        path: as the app sees it, with `*` for any run of characters: `/exports/*`.
        methods: HTTP methods; None for all, and for WebSockets.
        limit: the limit's name, or a callable of the ASGI scope; None for the middleware's own.
        cost: a whole number from 1, or a callable of the scope; None for the middleware's own.
    """

    path: str
    methods: Sequence[str] | None = None
    limit: LimitOf | None = None
    cost: CostOf | None = None

    def __post_init__(self) -> None:
        if not self.path.startswith(("/", "*")):
            raise ConfigurationError(f"expected a path beginning with / or *; got {self.path!r}")
        if isinstance(self.methods, str):
            raise ConfigurationError(f"expected a list of methods; got {self.methods!r}")
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

    Raises:
        ConfigurationError: for what cannot be.
    """

    def __init__(
        self, rules: Iterable[Rule], exempt: Iterable[str], limit: LimitOf, cost: CostOf
    ) -> None:
        if isinstance(exempt, str):
            raise ConfigurationError(f"expected a list of exempt paths; got {exempt!r}")
        check_limit(limit)
        check_cost(cost)
        paths = tuple(exempt)
        self._exempt = frozenset(path for path in paths if "*" not in path)
        patterns = [translate(path) for path in paths if "*" in path]
        self._exempt_pattern = re.compile("|".join(patterns)) if patterns else None
        self._rules = [
            (
                re.compile(translate(rule.path)),
                None if rule.methods is None else frozenset(map(str.upper, rule.methods)),
                limit if rule.limit is None else rule.limit,
                cost if rule.cost is None else rule.cost,
            )
            for rule in rules
        ]
        self._limit = limit
        self._cost = cost

    def of(self, scope: Scope) -> tuple[str, int] | None:
        """The limit and the cost of a request; None when it is exempt.

        Raises:
            ConfigurationError: a callable of the app's returned what can be none.
        """
        path: str = scope["path"]
        root: str = scope.get("root_path", "")
        if root and path.startswith(root):
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
