"""WebSockets under the middleware: connects are governed, and refused as the server can."""

import pytest

from partywall import FeatureMissing
from tests.unit.sdk.asgi import (
    BOTH_FAMILIES,
    Sidecar,
    answering,
    exchange,
    raising,
    refusing,
    reply,
    tenant_seen,
    websocket_scope,
)


async def test_a_connect_is_governed_and_its_accept_has_the_headers():
    sidecar = Sidecar()
    sent = await exchange(sidecar.governing(answering(tenant_seen)), websocket_scope())
    assert [message["type"] for message in sent] == ["websocket.accept", "websocket.send"]
    names = [name for name, _ in sent[0]["headers"]]
    assert names[0] == b"x-app"
    assert {name.decode() for name in names[1:]} == BOTH_FAMILIES
    assert sent[1]["text"] == "acme"
    assert len(sidecar.seen) == 1


async def test_a_refusal_is_a_response_where_the_server_can_send_one():
    scope = websocket_scope(can_respond=True)
    sent = await exchange(Sidecar(refusing).governing(answering()), scope)
    answer = reply(sent, "websocket.http.response")
    assert answer.status == 429
    assert answer.problem["violated-policies"] == ["requests"]
    assert answer["retry-after"] == "31"


async def test_a_refusal_is_a_close_where_it_cannot():
    for scope in (websocket_scope(), websocket_scope(extensions=None)):
        sent = await exchange(Sidecar(refusing).governing(answering()), scope)
        assert sent == [{"type": "websocket.close", "code": 1008, "reason": ""}]


async def test_a_refusal_of_the_apps_own_has_the_headers():
    async def app(scope, receive, send):
        await send({"type": "websocket.http.response.start", "status": 418, "headers": []})
        await send({"type": "websocket.http.response.body", "body": b""})

    sent = await exchange(Sidecar().governing(app), websocket_scope(can_respond=True))
    assert reply(sent, "websocket.http.response").names() == BOTH_FAMILIES


@pytest.mark.parametrize(
    "begin",
    [
        {"type": "websocket.accept"},
        {"type": "websocket.close", "code": 1000},
        {"type": "websocket.http.response.start", "status": 418, "headers": []},
    ],
)
async def test_denied_raised_after_the_app_has_answered_passes(begin):
    error = FeatureMissing("acme", "free", "sso", None)

    async def app(scope, receive, send):
        await send(begin)
        raise error

    with pytest.raises(FeatureMissing) as caught:
        await exchange(Sidecar().governing(app), websocket_scope(can_respond=True))
    assert caught.value is error


async def test_denied_raised_before_it_refuses_the_connect():
    app = answering(lambda scope: raising(FeatureMissing("acme", "free", "sso", "pro")))

    async def early(scope, receive, send):
        await app({**scope, "type": "http"}, receive, send)

    sent = await exchange(Sidecar().governing(early), websocket_scope(can_respond=True))
    assert reply(sent, "websocket.http.response").problem["upgrade"] == "pro"
