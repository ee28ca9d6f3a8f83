"""The fake sidecar's quotas over REST: paths, bodies, idempotency keys (docs/contract.md)."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, NamedTuple
from urllib.parse import unquote

import httpx
import msgspec

from partywall._fake.bodies import read
from partywall._fake.book import Asker, Book, Terms
from partywall._fake.core import NAME_PATTERN, Core
from partywall._fake.policy import Tier
from partywall._fake.refused import Refused
from partywall._fake.windows import MICROSECONDS
from partywall.calls import KEY_HEADER
from partywall.protocol import LIMIT_PATTERN, MAX_AMOUNT
from partywall.quotas.items import MAX_TTL
from partywall.quotas.records import LedgerPage, Quota, Reserved
from partywall.tenants import is_tenant_id

KEPT = timedelta(hours=24)
"""For how long a key is answered as the first time: no longer than docs/contract.md promises."""

MAX_RESOURCES = 64
"""Resources to one change."""

_Items = Annotated[
    dict[str, Annotated[int, msgspec.Meta(ge=1, le=MAX_AMOUNT)]],
    msgspec.Meta(min_length=1, max_length=MAX_RESOURCES),
]
_Reason = Annotated[str, msgspec.Meta(min_length=1, max_length=500)]
_Name = Annotated[str, msgspec.Meta(pattern=NAME_PATTERN)]


class _Change(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    items: _Items
    reason: _Reason | None = None


class _Reserve(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    items: _Items
    ttl: Annotated[int, msgspec.Meta(ge=1, le=MAX_TTL)] = 60


class _Commit(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    items: _Items | None = None
    reason: _Reason | None = None


class _Cancel(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    pass


class _Put(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    used: Annotated[int, msgspec.Meta(ge=0, le=MAX_AMOUNT)]
    reason: _Reason | None = None
    if_version: Annotated[int, msgspec.Meta(ge=0, le=MAX_AMOUNT)] | None = None


class _Kept(NamedTuple):
    """What a key was answered."""

    until: datetime
    said: bytes
    answer: object


class _Asked(NamedTuple):
    """A request on one tenant's quotas."""

    core: Core
    tenant: str
    request: httpx.Request
    body: bytes

    @property
    def method(self) -> str:
        return self.request.method

    @property
    def now(self) -> datetime:
        return datetime.fromtimestamp(self.core.now / MICROSECONDS, UTC)

    @property
    def tier(self) -> Tier:
        tier = self.core.tier_of(self.tenant)
        if tier is None:
            raise Refused("unknown-tenant", f"tenant {self.tenant!r} is not registered")
        return tier

    def book(self, names: Sequence[str] = (), tier: Tier | None = None) -> Book:
        """The tenant's book as it is now, under its tier or another; it must have `names`."""
        quotas = (tier or self.tier).quotas
        for name in names:
            if not LIMIT_PATTERN.fullmatch(name):
                raise Refused("invalid-request", "expected a resource's name", f"items.{name}")
            if name not in quotas:
                expected = ", ".join(quotas) or "none"
                raise Refused(
                    "unknown-resource",
                    f"no tier has a quota of {name!r}; expected one of {expected}",
                )
        resources = self.core.policy.resources
        terms = {name: Terms(quota, resources[name]) for name, quota in quotas.items()}
        return self.core.books.setdefault(self.tenant, Book(self.tenant)).at(self.now, terms)


def quota_answer(
    core: Core, tenant: str, path: Sequence[str], request: httpx.Request, body: bytes
) -> object:
    """What is answered to a request on one tenant's quotas.

    Args:
        core: what the fake sidecar knows.
        tenant: its id.
        path: the parts of it below the tenant, still quoted.
        request: for its method, parameters and headers.
        body: its body.

    Raises:
        Refused: it is answered with a problem.
    """
    if not is_tenant_id(tenant):
        raise Refused("invalid-request", f"expected a tenant's id; got {tenant!r}", "tenant")
    asked = _Asked(core, tenant, request, body)
    match [asked.method, *map(unquote, path)]:
        case ["GET", "quotas"]:
            return _quotas(asked)
        case ["GET", "ledger"]:
            return _ledger(asked)
        case ["GET", "preview"]:
            return _preview(asked)
        case ["POST", "quotas", "consume" | "release" | "reserve" as verb]:
            return _changed(asked, verb)
        case ["POST", "quotas", "reservations", name, "commit" | "cancel" as verb]:
            return _settled(asked, name, verb)
        case ["PUT", "quotas", resource]:
            return _put(asked, resource)
    raise Refused("not-found", f"the fake sidecar has no {request.method} {request.url.path}")


def _quotas(asked: _Asked) -> object:
    book = asked.book()
    quotas = [book.quota(name) for name in asked.tier.quotas]
    return {"tenant": asked.tenant, "tier": asked.tier.name, "quotas": quotas}


def _changed(asked: _Asked, verb: str) -> object:
    if verb == "reserve":
        hold = read(asked.body, _Reserve)
        book = asked.book(list(hold.items))
        return _once(asked, hold, lambda _: _shown(book.reserve(hold.items, hold.ttl)))
    change = read(asked.body, _Change)
    book = asked.book(list(change.items))
    apply = book.consume if verb == "consume" else book.release
    return _once(asked, change, lambda key: apply(change.items, Asker(key, change.reason)))


def _settled(asked: _Asked, name: str, verb: str) -> object:
    if verb == "cancel":
        cancel = read(asked.body or b"{}", _Cancel)
        book = asked.book()
        return _once(asked, cancel, lambda key: book.settle(name, "cancelled", None, Asker(key)))
    commit = read(asked.body or b"{}", _Commit)
    book = asked.book(list(commit.items or ()))
    return _once(
        asked,
        commit,
        lambda key: book.settle(name, "committed", commit.items, Asker(key, commit.reason)),
    )


def _put(asked: _Asked, resource: str) -> Quota:
    level = read(asked.body, _Put)
    if not LIMIT_PATTERN.fullmatch(resource):
        raise Refused("invalid-request", "expected a resource's name", "resource")
    book = asked.book([resource])
    quota: Quota = _once(
        asked,
        level,
        lambda key: book.set_used(resource, level.used, level.if_version, Asker(key, level.reason)),
    )
    return quota


def _ledger(asked: _Asked) -> LedgerPage:
    params = asked.request.url.params
    resource = params.get("resource")
    entries = asked.book().entries
    before = int(params.get("cursor", len(entries)))
    places = [
        place
        for place in range(before - 1, -1, -1)
        if resource is None or entries[place].resource == resource
    ]
    if resource is not None and not places:
        asked.book([resource])
    size = int(params.get("page_size", "100"))
    page = places[:size]
    return LedgerPage(
        [entries[place] for place in page], str(page[-1]) if len(places) > size else None
    )


def _preview(asked: _Asked) -> object:
    tiers = asked.core.policy.tiers
    name = asked.request.url.params.get("tier", "")
    if name not in tiers:
        expected = ", ".join(tiers)
        raise Refused("invalid-request", f"expected one of {expected}; got {name!r}", "tier")
    tier = asked.tier
    book = asked.book(tier=tiers[name])
    quotas = [book.quota(resource) for resource in tiers[name].quotas]
    over = [
        {"resource": it.resource, "used": it.used, "limit": it.limit, "excess": it.used - it.limit}
        for it in quotas
        if it.limit is not None and it.used > it.limit
    ]
    return {"tenant": asked.tenant, "from": tier.name, "to": name, "over": over}


def _once(asked: _Asked, body: object, change: Any) -> Any:  # noqa: ANN401 - whatever it answers
    """Makes a change, or answers as the first time that its key was there."""
    key = asked.request.headers.get(KEY_HEADER)
    if key is None:
        return change(None)
    said = msgspec.json.encode(body, order="sorted")
    answers = asked.core.answers
    name = (asked.method, asked.request.url.path, key)
    kept: _Kept | None = answers.get(name)
    if kept is None or kept.until <= asked.now:
        try:
            answer = change(key)
        except Refused as refused:
            answer = refused
        kept = answers[name] = _Kept(asked.now + KEPT, said, answer)
    elif kept.said != said:
        raise Refused("conflict", "the idempotency key was used for another request before")
    if isinstance(kept.answer, Refused):
        raise Refused(kept.answer.slug, kept.answer.detail, kept.answer.field)
    return kept.answer


def _shown(reserved: Reserved) -> Mapping[str, object]:
    """As the real one writes it: a denial names no reservation."""
    document: dict[str, object] = msgspec.to_builtins(reserved)
    if reserved.reservation is None:
        del document["reservation"], document["expires_at"]
    return document
