"""`POST /v1/usage`: what SDK processes report of their own decisions and requests."""

import msgspec

from partywall.protocol import UsageAnswer, UsageReport
from partywall_service.api.problems import invalid
from partywall_service.api.raw import COMMON, Answer, HotRoute, Receive, decode, read_body
from partywall_service.usage.reported import InvalidReport, Reported

MAX_BODY = 4 * 1024 * 1024
"""Bytes: a thousand tenants with some thirty meters each."""

USAGE_ROUTE = HotRoute(
    "/v1/usage",
    "POST",
    "Report what an SDK process counted",
    UsageReport,
    UsageAnswer,
    (*COMMON, "method-not-allowed"),
    tag="usage",
    description=(
        "Increments since the process's report before this one. It is counted once, however often "
        "it is sent, so after a 503, or no answer, send the same one again."
    ),
)

_decoder = msgspec.json.Decoder(UsageReport)
_encoder = msgspec.json.Encoder()


async def answer_report(reported: Reported | None, receive: Receive) -> Answer:
    """Counts what a request reports.

    Args:
        reported: None where usage is not metered; then nothing is counted, and all is well.
        receive: the request's body.

    Raises:
        Problem: whatever is wrong with the request.
        LedgerUnavailable, StoreError: as `Reported.apply`.
    """
    report = decode(_decoder, await read_body(receive, MAX_BODY))
    try:
        applied = 0 if reported is None else await reported.apply(report)
    except InvalidReport as exc:
        raise invalid(exc.field, str(exc)) from exc
    return Answer(200, "application/json", _encoder.encode(UsageAnswer(applied)))
