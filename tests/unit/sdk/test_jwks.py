"""Keys that the issuer publishes: when they are fetched, and what happens while they cannot be."""

import asyncio
import json
from collections.abc import Awaitable
from typing import Any

import httpx
import jwt
import pytest
from jwt.algorithms import ECAlgorithm, HMACAlgorithm, OKPAlgorithm, RSAAlgorithm

from partywall import jwks
from partywall.errors import ConfigurationError, InvalidCredentials, KeysUnavailable
from partywall.jwks import AGAIN_AFTER, MAX_AGE, RETRY_AFTER
from partywall.jwt import FromJWT
from tests.unit.sdk.scopes import scope
from tests.unit.sdk.tokens import NOW, SECRET, Clock, handmade, key_of, rsa_key, token

URL = "https://id.example/.well-known/jwks.json"


def published(key: Any, kid: str | None = None, **more: Any) -> dict[str, Any]:
    """The public half, as an issuer publishes it."""
    kinds: dict[str, Any] = {"RSA": RSAAlgorithm, "Ell": ECAlgorithm, "ECP": ECAlgorithm}
    kind = kinds.get(type(key).__name__[:3], OKPAlgorithm)
    found: dict[str, Any] = json.loads(kind.to_jwk(key.public_key()))
    found.pop("key_ops", None)
    return {**found, **({} if kid is None else {"kid": kid}), **more}


ONE, TWO = rsa_key("one"), rsa_key("two")


class Issuer:
    """Publishes keys, counts who asks, and can be held up or down."""

    def __init__(self) -> None:
        self.keys: Any = [published(ONE, "one")]
        self.body: bytes | None = None
        self.status = 200
        self.error: httpx.HTTPError | None = None
        self.open = asyncio.Event()
        self.open.set()
        self.asked = asyncio.Semaphore(0)
        self.fetches = 0

    async def __call__(self, request: httpx.Request) -> httpx.Response:
        assert str(request.url) == URL
        self.fetches += 1
        self.asked.release()
        await self.open.wait()
        if self.error is not None:
            raise self.error
        body = json.dumps({"keys": self.keys}).encode() if self.body is None else self.body
        return httpx.Response(self.status, content=body)


@pytest.fixture
def issuer() -> Issuer:
    return Issuer()


@pytest.fixture
def timer() -> Clock:
    return Clock(50.0)


@pytest.fixture
def resolve(issuer: Issuer, timer: Clock) -> FromJWT:
    return from_issuer(issuer, timer)


def from_issuer(issuer: Issuer, timer: Clock, /, **options: Any) -> FromJWT:
    transport = httpx.MockTransport(issuer)
    return FromJWT(jwks_url=URL, transport=transport, clock=Clock(), timer=timer, **options)


def bearer(text: str) -> dict[str, Any]:
    return scope(authorization=f"Bearer {text}")


def later(answer: str | Awaitable[str | None] | None) -> Awaitable[str | None]:
    assert answer is not None
    assert not isinstance(answer, str)
    return answer


async def ask(resolve: FromJWT, text: str) -> str | None:
    answer = resolve(bearer(text))
    return answer if answer is None or isinstance(answer, str) else await answer


def by(key: Any, kid: str | None, algorithm: str = "RS256", **claims: Any) -> str:
    return token(key, algorithm, kid, **claims)


class TestFetching:
    async def test_keys_are_fetched_at_the_first_token_and_then_at_hand(
        self, resolve: FromJWT, issuer: Issuer
    ) -> None:
        assert issuer.fetches == 0
        assert await later(resolve(bearer(by(ONE, "one")))) == "acme"
        assert resolve(bearer(by(ONE, "one"))) == "acme"
        assert resolve(bearer(by(ONE, "one", tenant_id="globex"))) == "globex"
        assert issuer.fetches == 1

    async def test_many_who_need_them_at_once_share_one_fetch(
        self, resolve: FromJWT, issuer: Issuer
    ) -> None:
        texts = [by(ONE, "one", tenant_id=f"t{number}") for number in range(50)]
        answers = await asyncio.gather(*(later(resolve(bearer(text))) for text in texts))
        assert answers == [f"t{number}" for number in range(50)]
        assert issuer.fetches == 1

    async def test_whoever_asked_first_may_hang_up(self, resolve: FromJWT, issuer: Issuer) -> None:
        issuer.open.clear()
        first = asyncio.ensure_future(later(resolve(bearer(by(ONE, "one")))))
        second = asyncio.ensure_future(later(resolve(bearer(by(ONE, "one")))))
        await issuer.asked.acquire()
        first.cancel()
        with pytest.raises(asyncio.CancelledError):
            await first
        issuer.open.set()
        assert await second == "acme"
        assert issuer.fetches == 1

    @pytest.mark.parametrize(
        "text", ["a.b.c", handmade({"alg": "none"}, {}), handmade({"alg": "HS256"}, {}, b"x")]
    )
    async def test_what_cannot_be_valid_is_no_reason_to_ask_for_keys(
        self, resolve: FromJWT, issuer: Issuer, text: str
    ) -> None:
        with pytest.raises(InvalidCredentials):
            resolve(bearer(text))
        assert resolve(bearer("an-api-key")) is None
        assert issuer.fetches == 0

    async def test_old_keys_are_fetched_anew_while_they_go_on_being_used(
        self, resolve: FromJWT, issuer: Issuer, timer: Clock
    ) -> None:
        text = by(ONE, "one")
        await ask(resolve, text)
        timer.now += MAX_AGE
        issuer.open.clear()
        issuer.keys = [published(TWO, "two")]
        await issuer.asked.acquire()
        assert resolve(bearer(text)) == "acme"
        await issuer.asked.acquire()
        assert resolve(bearer(text)) == "acme"
        assert issuer.fetches == 2
        issuer.open.set()
        assert await later(resolve(bearer(by(TWO, "two")))) == "acme"
        assert issuer.fetches == 2

    async def test_after_a_long_silence_old_keys_are_not_used_unseen(
        self, resolve: FromJWT, issuer: Issuer, timer: Clock
    ) -> None:
        text = by(ONE, "one")
        await ask(resolve, text)
        timer.now += 3 * MAX_AGE
        issuer.keys = [published(TWO, "two")]
        with pytest.raises(InvalidCredentials):
            await later(resolve(bearer(text)))

    def test_one_resolver_serves_several_event_loops(self, issuer: Issuer, timer: Clock) -> None:
        """As test clients make them: one that is abandoned in the middle holds up no other."""
        resolve = from_issuer(issuer, timer)
        issuer.open = asyncio.Event()

        async def give_up() -> None:
            waiting = asyncio.ensure_future(later(resolve(bearer(by(ONE, "one")))))
            await issuer.asked.acquire()
            assert not waiting.done()

        async def again() -> str | None:
            issuer.open = asyncio.Event()
            issuer.open.set()
            return await later(resolve(bearer(by(ONE, "one"))))

        asyncio.run(give_up())
        timer.now += RETRY_AFTER
        assert asyncio.run(again()) == "acme"


class TestRotation:
    async def test_a_new_key_is_learnt_and_a_withdrawn_one_forgotten_with_its_tokens(
        self, resolve: FromJWT, issuer: Issuer, timer: Clock
    ) -> None:
        old, new = by(ONE, "one"), by(TWO, "two")
        assert await ask(resolve, old) == "acme"
        issuer.keys = [published(TWO, "two")]
        timer.now += AGAIN_AFTER
        assert resolve(bearer(old)) == "acme"
        assert await later(resolve(bearer(new))) == "acme"
        with pytest.raises(InvalidCredentials, match="known key"):
            resolve(bearer(old))
        assert issuer.fetches == 2

    async def test_a_key_replaced_under_its_old_name_is_learnt_too(
        self, resolve: FromJWT, issuer: Issuer, timer: Clock
    ) -> None:
        await ask(resolve, by(ONE, "one"))
        issuer.keys = [published(TWO, "one")]
        timer.now += AGAIN_AFTER
        assert await later(resolve(bearer(by(TWO, "one")))) == "acme"

    async def test_a_flood_of_unknown_keys_is_no_flood_for_the_issuer(
        self, resolve: FromJWT, issuer: Issuer, timer: Clock
    ) -> None:
        await ask(resolve, by(ONE, "one"))
        forged = by(TWO, "made-up")
        for second in range(50):
            timer.now = 50.0 + second
            answers = await asyncio.gather(
                *(ask(resolve, forged) for _ in range(5)), return_exceptions=True
            )
            assert all(isinstance(answer, InvalidCredentials) for answer in answers)
            assert resolve(bearer(by(ONE, "one"))) == "acme"
        assert issuer.fetches == 1 + int(49 // AGAIN_AFTER)

    async def test_the_same_keys_fetched_again_keep_what_was_verified(
        self,
        resolve: FromJWT,
        issuer: Issuer,
        timer: Clock,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        await ask(resolve, by(ONE, "one"))
        timer.now += AGAIN_AFTER
        with pytest.raises(InvalidCredentials):
            await ask(resolve, by(TWO, "made-up"))
        assert issuer.fetches == 2
        monkeypatch.delattr(jwt.PyJWS, "decode")
        assert resolve(bearer(by(ONE, "one"))) == "acme"


class TestOutage:
    @pytest.mark.parametrize(
        "fault",
        [
            {"error": httpx.ConnectError("refused")},
            {"status": 500},
            {"status": 302},
            {"body": b"<html>"},
            {"body": b'{"keys": "none"}'},
            {"body": b"{}"},
            {"body": b'{"keys": [{"kty": "\xff"}]}'},
            {"keys": []},
        ],
    )
    async def test_without_any_keys_tokens_can_be_neither_accepted_nor_refused(
        self, resolve: FromJWT, issuer: Issuer, timer: Clock, fault: dict[str, Any]
    ) -> None:
        for name, value in fault.items():
            setattr(issuer, name, value)
        for _ in range(3):
            with pytest.raises(KeysUnavailable, match=r"no keys from https://id\.example"):
                await later(resolve(bearer(by(ONE, "one"))))
        assert issuer.fetches == 1
        vars(issuer).update(status=200, error=None, body=None, keys=[published(ONE, "one")])
        timer.now += RETRY_AFTER
        assert await later(resolve(bearer(by(ONE, "one")))) == "acme"

    async def test_with_keys_at_hand_those_go_on_being_used(
        self,
        resolve: FromJWT,
        issuer: Issuer,
        timer: Clock,
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        await ask(resolve, by(ONE, "one"))
        issuer.error = httpx.ConnectError("refused")
        timer.now += 5 * MAX_AGE
        assert await later(resolve(bearer(by(ONE, "one")))) == "acme"
        assert resolve(bearer(by(ONE, "one", tenant_id="globex"))) == "globex"
        assert issuer.fetches == 2
        assert "those at hand go on being used" in caplog.text
        timer.now += AGAIN_AFTER
        with pytest.raises(InvalidCredentials):
            await ask(resolve, by(TWO, "two"))
        assert issuer.fetches == 3

    async def test_an_issuer_that_hangs_is_given_up(
        self, resolve: FromJWT, issuer: Issuer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(jwks, "DEADLINE", 0.01)
        issuer.open.clear()
        with pytest.raises(KeysUnavailable, match="TimeoutError"):
            await later(resolve(bearer(by(ONE, "one"))))


class TestWhichKeysCount:
    @pytest.mark.parametrize(("algorithm", "kid"), [("ES256", "e"), ("EdDSA", "d"), ("RS256", "r")])
    async def test_each_kind_checks_its_own_algorithm(
        self, resolve: FromJWT, issuer: Issuer, algorithm: str, kid: str
    ) -> None:
        issuer.keys = [
            published(key_of("ES256"), "e"),
            published(key_of("EdDSA"), "d"),
            published(rsa_key(), "r", use="sig", alg="RS256"),
        ]
        assert await ask(resolve, by(key_of(algorithm), kid, algorithm)) == "acme"
        assert await ask(resolve, by(key_of(algorithm), None, algorithm)) == "acme"

    async def test_a_key_without_a_name_serves_every_token(
        self, resolve: FromJWT, issuer: Issuer
    ) -> None:
        issuer.keys = [published(TWO), published(ONE)]
        assert await ask(resolve, by(ONE, "whatever")) == "acme"
        assert await ask(resolve, by(ONE, None)) == "acme"

    async def test_malformed_and_foreign_keys_are_passed_over(
        self, resolve: FromJWT, issuer: Issuer
    ) -> None:
        good = published(ONE, "one")
        issuer.keys = [
            {},
            {"kty": "oct"},
            {"kty": "RSA"},
            {"kty": "unheard-of"},
            {**good, "n": 5},
            {**good, "alg": ["RS256"]},
            {**good, "alg": "RSA-OAEP"},
            {**good, "kid": 7},
            {"kty": "EC", "crv": "P-256", "x": "AA", "y": "AA"},
            good,
        ]
        assert await ask(resolve, by(ONE, "one")) == "acme"

    @pytest.mark.parametrize(
        "document",
        [
            published(TWO, "two", use="enc"),
            published(TWO, "two", alg="RS512"),
            published(rsa_key("weak", 1024), "two"),
            {**json.loads(RSAAlgorithm.to_jwk(TWO)), "kid": "two", "key_ops": None},
        ],
    )
    async def test_one_for_another_use_too_weak_or_private_checks_nothing(
        self, resolve: FromJWT, issuer: Issuer, document: dict[str, Any]
    ) -> None:
        issuer.keys = [published(ONE, "one"), document]
        with pytest.raises(InvalidCredentials, match="known key"):
            await ask(resolve, by(TWO, "two"))

    async def test_a_published_secret_never_checks_a_token(
        self, resolve: FromJWT, issuer: Issuer
    ) -> None:
        secret = json.loads(HMACAlgorithm.to_jwk(SECRET))
        issuer.keys = [published(ONE, "one"), {**secret, "kid": "s", "alg": "HS256"}]
        assert await ask(resolve, by(ONE, "one")) == "acme"
        with pytest.raises(InvalidCredentials, match="algorithm"):
            await ask(resolve, token(SECRET, "HS256", "s"))

    async def test_other_algorithms_are_accepted_when_they_are_named(
        self, issuer: Issuer, timer: Clock
    ) -> None:
        resolve = from_issuer(issuer, timer, algorithms=["PS256"])
        assert await ask(resolve, by(ONE, "one", "PS256")) == "acme"
        with pytest.raises(InvalidCredentials, match="algorithm"):
            await ask(resolve, by(ONE, "one", "RS256"))

    async def test_the_claims_are_checked_as_with_any_key(
        self, issuer: Issuer, timer: Clock
    ) -> None:
        resolve = from_issuer(issuer, timer, issuer="https://id.example")
        assert await ask(resolve, by(ONE, "one", iss="https://id.example")) == "acme"
        for wrong in (
            by(ONE, "one", iss="https://id.example", exp=NOW),
            by(ONE, "one", iss="https://evil.example"),
        ):
            with pytest.raises(InvalidCredentials):
                await ask(resolve, wrong)


@pytest.mark.parametrize("url", ["", "id.example/keys", "ftp://id.example/keys", "https://", 7])
def test_what_is_no_url_of_keys_is_refused(url: Any) -> None:
    with pytest.raises(ConfigurationError, match="expected an https:// URL"):
        FromJWT(jwks_url=url)


def test_a_secrets_algorithm_beside_published_keys_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="got HS256, RS256"):
        FromJWT(jwks_url=URL, algorithms=["RS256", "HS256"])
