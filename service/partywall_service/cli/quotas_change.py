"""`partywall quotas consume`, `release` and `set`: changes of what a tenant uses."""

import re
import uuid
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from partywall_service.cli.errors import CliError
from partywall_service.cli.options import (
    Format,
    FormatOption,
    JsonOption,
    TenantArgument,
    UrlOption,
    sidecar,
)

if TYPE_CHECKING:
    from partywall_service.cli.client import Sidecar
    from partywall_service.cli.quotas_answers import Changed
    from partywall_service.cli.quotas_items import Item
    from partywall_service.quotas.model import QuotaState

DENIED = 3
"""The exit code when a quota has no room: an answer, and no error."""


def _key(text: str | None) -> str | None:
    if text is not None and re.fullmatch("[!-~]{1,255}", text) is None:
        raise typer.BadParameter("expected 1 to 255 visible ASCII characters")
    return text


ItemsArgument = Annotated[
    list[str],
    typer.Argument(
        metavar="RESOURCE=AMOUNT",
        help="Whole numbers; for resources of bytes sizes, too, such as storage=1GiB.",
        show_default=False,
    ),
]
KeyOption = Annotated[
    str | None,
    typer.Option(
        "--idempotency-key",
        metavar="KEY",
        callback=_key,
        help="The same again within 24 hours gets the first answer, and changes nothing.",
    ),
]
ReasonOption = Annotated[
    str | None, typer.Option("--reason", metavar="TEXT", help="Why, for the ledger.")
]


def consume(
    tenant: TenantArgument,
    items: ItemsArgument,
    reason: ReasonOption = None,
    key: KeyOption = None,
    form: FormatOption = Format.table,
    as_json: JsonOption = False,
    url: UrlOption = None,
) -> None:
    """Take of quotas: all of the amounts or none.

    Exit code 3 says that there was no room, and that nothing was taken.
    """
    _change("consume", tenant, items, reason, key, url, as_json or form is Format.json)


def release(
    tenant: TenantArgument,
    items: ItemsArgument,
    reason: ReasonOption = None,
    key: KeyOption = None,
    form: FormatOption = Format.table,
    as_json: JsonOption = False,
    url: UrlOption = None,
) -> None:
    """Give back to quotas: all of the amounts or none. Below zero it is an error."""
    _change("release", tenant, items, reason, key, url, as_json or form is Format.json)


def set_used(
    tenant: TenantArgument,
    item: Annotated[
        str,
        typer.Argument(metavar="RESOURCE=AMOUNT", help="What is really used.", show_default=False),
    ],
    reason: ReasonOption = None,
    if_version: Annotated[
        int | None,
        typer.Option(min=0, metavar="N", help="Only if it is still at this version."),
    ] = None,
    form: FormatOption = Format.table,
    as_json: JsonOption = False,
    url: UrlOption = None,
) -> None:
    """Say what is really used. It may be over the limit; the drift goes into the ledger."""
    from partywall_service.cli import output, quotas_items, quotas_text
    from partywall_service.cli.client import Conflict
    from partywall_service.quotas.model import QuotaState

    [wanted] = quotas_items.parse_items([item], least=0)
    body = _without_none(used=wanted.amount, reason=reason, if_version=if_version)
    with sidecar(url) as api:
        _check_sizes(api, tenant, [wanted])
        try:
            answer, _ = api.put("tenants", tenant, "quotas", wanted.resource, body=body)
        except Conflict as exc:
            raise CliError(
                f"{exc}; `partywall quotas show {tenant} --json` tells its version now"
            ) from exc
        quota = api.read_as(QuotaState, answer)
    if as_json or form is Format.json:
        output.print_json(answer)
        return
    output.note(
        f"{tenant} has {quota.resource} set: {quotas_text.use_text(quota)}; version {quota.version}"
    )


def _change(
    verb: str,
    tenant: str,
    texts: list[str],
    reason: str | None,
    key: str | None,
    url: str | None,
    as_json: bool,
) -> None:
    from partywall_service.cli import output, quotas_items
    from partywall_service.cli.client import Unanswered
    from partywall_service.cli.quotas_answers import Changed
    from partywall_service.cli.quotas_table import print_quotas

    items = quotas_items.parse_items(texts, least=1)
    body = _without_none(items={one.resource: one.amount for one in items}, reason=reason)
    # One of its own, so that what was never answered can be asked for.
    named = key or f"cli-{uuid.uuid4().hex}"
    with sidecar(url) as api:
        _check_sizes(api, tenant, items)
        try:
            answer = api.post("tenants", tenant, "quotas", verb, body=body, key=named)
        except Unanswered as exc:
            raise CliError(
                f"{exc}; it may have been done: the same command with --idempotency-key {named} "
                "does it once at most, and tells"
            ) from exc
        changed = api.read_as(Changed, answer)
    if as_json:
        output.print_json(answer)
    if not changed.allowed:
        output.note("\n".join(_denial(tenant, items, changed)))
        raise typer.Exit(DENIED)
    done = ", ".join(f"{one.resource}={one.text}" for one in items)
    output.note(f"{tenant} {verb}d {done}")
    for one in changed.crossings:
        output.note(f"{one.resource} crossed {one.percent}% of its limit")
    if not as_json:
        print_quotas(output.stdout(), changed.quotas, now=datetime.now(UTC))


def _check_sizes(api: "Sidecar", tenant: str, items: "list[Item]") -> None:
    """Asks what resources are counted in, if that matters."""
    from partywall_service.cli import quotas_items
    from partywall_service.cli.quotas_answers import read_quotas

    if any(one.is_size for one in items):
        quotas_items.check_units(items, read_quotas(api, tenant).units)


def _denial(tenant: str, items: "list[Item]", changed: "Changed") -> list[str]:
    """What was denied, what remains, and what to do next: a sentence each."""
    from partywall_service.cli.quotas_text import use_text, waiting_text

    asked = {one.resource: one for one in items}
    quotas = {one.resource: one for one in changed.quotas}
    told, advice = [], []
    for resource in changed.denied:
        item, quota = asked.get(resource), quotas.get(resource)
        if item is None or quota is None:
            told.append(f"denied: {tenant} has no room for {resource}")
            continue
        wanted = f"{resource}={item.text}"
        told.append(f"denied: {tenant} has no room for {wanted}: {use_text(quota)}")
        if quota.limit is None:
            continue
        if quota.resets_at is not None:
            when = waiting_text(quota.resets_at, datetime.now(UTC))
            advice.append(f"{resource} refills {when}, at {quota.resets_at:%Y-%m-%d %H:%M} UTC")
        advice.append(f"to allow it now: {_raise(tenant, quota, item.amount)}")
    return [*told, "nothing was consumed", *advice]


def _raise(tenant: str, quota: "QuotaState", amount: int) -> str:
    enough = quota.used + quota.reserved + amount
    return f"partywall overrides set {tenant} quotas {quota.resource} {enough} --reason TEXT"


def _without_none(**fields: Any) -> dict[str, Any]:  # noqa: ANN401 - JSON
    return {name: value for name, value in fields.items() if value is not None}
