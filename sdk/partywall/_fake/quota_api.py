"""The fake sidecar's quotas over REST: paths and bodies (docs/contract.md)."""

from collections.abc import Mapping, Sequence
from typing import Annotated
from urllib.parse import unquote

import httpx
import msgspec

from partywall._fake.asked import Asked
from partywall._fake.bodies import read
from partywall._fake.book import Asker, Book
from partywall._fake.core import NAME_PATTERN, Core
from partywall._fake.policy import Tier
from partywall._fake.refused import Refused
from partywall.protocol import LIMIT_PATTERN, MAX_AMOUNT
from partywall.quotas.items import MAX_TTL
from partywall.quotas.records import LedgerPage, Quota, Reserved
from partywall.tenants import is_tenant_id

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
    asked = Asked(core, tenant, request, body)
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


def _book(asked: Asked, names: Sequence[str] = (), tier: Tier | None = None) -> Book:
    """The tenant's book as it is now, under its tier or another; it must have `names`."""
    quotas = (tier or asked.tier).quotas
    for name in names:
        if not LIMIT_PATTERN.fullmatch(name):
            raise Refused("invalid-request", "expected a resource's name", f"items.{name}")
        if name not in quotas:
            expected = ", ".join(quotas) or "none"
            raise Refused(
                "unknown-resource",
                f"no tier has a quota of {name!r}; expected one of {expected}",
            )
    return asked.core.book(asked.tenant, tier or asked.tier)


def _quotas(asked: Asked) -> object:
    book = _book(asked)
    quotas = [book.quota(name) for name in asked.tier.quotas]
    return {"tenant": asked.tenant, "tier": asked.tier.name, "quotas": quotas}


def _changed(asked: Asked, verb: str) -> object:
    if verb == "reserve":
        hold = read(asked.body, _Reserve)
        book = _book(asked, list(hold.items))
        return asked.once(hold, lambda _: _shown(book.reserve(hold.items, hold.ttl)))
    change = read(asked.body, _Change)
    book = _book(asked, list(change.items))
    apply = book.consume if verb == "consume" else book.release
    return asked.once(change, lambda key: apply(change.items, Asker(key, change.reason)))


def _settled(asked: Asked, name: str, verb: str) -> object:
    if verb == "cancel":
        cancel = read(asked.body or b"{}", _Cancel)
        book = _book(asked)
        return asked.once(cancel, lambda key: book.settle(name, "cancelled", None, Asker(key)))
    commit = read(asked.body or b"{}", _Commit)
    book = _book(asked, list(commit.items or ()))
    return asked.once(
        commit,
        lambda key: book.settle(name, "committed", commit.items, Asker(key, commit.reason)),
    )


def _put(asked: Asked, resource: str) -> Quota:
    level = read(asked.body, _Put)
    if not LIMIT_PATTERN.fullmatch(resource):
        raise Refused("invalid-request", "expected a resource's name", "resource")
    book = _book(asked, [resource])
    quota: Quota = asked.once(
        level,
        lambda key: book.set_used(resource, level.used, level.if_version, Asker(key, level.reason)),
    )
    return quota


def _ledger(asked: Asked) -> LedgerPage:
    params = asked.request.url.params
    resource = params.get("resource")
    entries = _book(asked).entries
    before = int(params.get("cursor", len(entries)))
    places = [
        place
        for place in range(before - 1, -1, -1)
        if resource is None or entries[place].resource == resource
    ]
    if resource is not None and not places:
        _book(asked, [resource])
    size = int(params.get("page_size", "100"))
    page = places[:size]
    return LedgerPage(
        [entries[place] for place in page], str(page[-1]) if len(places) > size else None
    )


def _preview(asked: Asked) -> object:
    tiers = asked.core.policy.tiers
    name = asked.request.url.params.get("tier", "")
    if name not in tiers:
        expected = ", ".join(tiers)
        raise Refused("invalid-request", f"expected one of {expected}; got {name!r}", "tier")
    tier = asked.tier
    book = _book(asked, tier=tiers[name])
    quotas = [book.quota(resource) for resource in tiers[name].quotas]
    over = [
        {"resource": it.resource, "used": it.used, "limit": it.limit, "excess": it.used - it.limit}
        for it in quotas
        if it.limit is not None and it.used > it.limit
    ]
    return {"tenant": asked.tenant, "from": tier.name, "to": name, "over": over}


def _shown(reserved: Reserved) -> Mapping[str, object]:
    """As the real one writes it: a denial names no reservation."""
    document: dict[str, object] = msgspec.to_builtins(reserved)
    if reserved.reservation is None:
        del document["reservation"], document["expires_at"]
    return document
