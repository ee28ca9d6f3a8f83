"""Signed tokens by a key that the app was given: which are refused, and what the others name."""

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import jwt
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)
from hypothesis import given
from hypothesis import strategies as st

from partywall.errors import ConfigurationError, InvalidCredentials
from partywall.jwt import LARGEST_REMEMBERED, FromJWT
from partywall.tenants import Chain, FromHeader
from tests.unit.sdk.scopes import scope, scope_of
from tests.unit.sdk.tokens import NOW, SECRET, Clock, handmade, key_of, pem, rsa_key, token

ACME = {"tenant_id": "acme", "exp": NOW + 60}


def from_jwt(key: str | bytes | None = SECRET, **options: Any) -> FromJWT:
    options.setdefault("clock", Clock())
    return FromJWT(key, **options)


def bearer(text: str) -> dict[str, Any]:
    return scope(authorization=f"Bearer {text}")


def refused(resolve: FromJWT, text: str) -> str:
    with pytest.raises(InvalidCredentials) as caught:
        resolve(bearer(text))
    return caught.value.reason


class TestWhichTokensAreAccepted:
    def test_one_signed_with_the_secret_names_its_tenant(self) -> None:
        assert from_jwt()(bearer(token())) == "acme"
        assert from_jwt(SECRET.encode())(bearer(token())) == "acme"

    @pytest.mark.parametrize("algorithm", ["RS256", "ES256", "ES384", "ES512", "EdDSA"])
    def test_one_signed_with_a_private_key_is_checked_by_the_public_one(
        self, algorithm: str
    ) -> None:
        key = key_of(algorithm)
        assert from_jwt(pem(key))(bearer(token(key, algorithm))) == "acme"

    def test_a_certificate_holds_a_public_key_too(self) -> None:
        name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "issuer")])
        made = (
            x509.CertificateBuilder(name, name, rsa_key().public_key(), 1)
            .not_valid_before(datetime(2020, 1, 1, tzinfo=UTC))
            .not_valid_after(datetime(2020, 1, 1, tzinfo=UTC) + timedelta(days=1))
            .sign(rsa_key(), hashes.SHA256())
        )
        resolve = from_jwt(made.public_bytes(Encoding.PEM))
        assert resolve(bearer(token(rsa_key(), "RS256"))) == "acme"

    def test_other_algorithms_are_accepted_when_they_are_named(self) -> None:
        assert from_jwt(algorithms=["HS512"])(bearer(token(algorithm="HS512"))) == "acme"
        resolve = from_jwt(pem(rsa_key()), algorithms=["PS256", "RS512"])
        assert resolve(bearer(token(rsa_key(), "PS256"))) == "acme"
        assert refused(resolve, token(rsa_key(), "RS256")) == "its algorithm is not accepted"

    @pytest.mark.parametrize(
        "value", ["Bearer {}", "bearer {}", "BEARER   {} \t", " Bearer {}", "Bearer\t{}"]
    )
    def test_the_scheme_is_read_as_http_has_it(self, value: str) -> None:
        expected = None if "\t{" in value else "acme"
        assert from_jwt()(scope(authorization=value.format(token()))) == expected


class TestWhichTokensAreRefused:
    def test_another_payload_under_the_same_signature(self) -> None:
        head, _, signature = token().split(".")
        payload = token(tenant_id="globex").split(".")[1]
        assert "signed" in refused(from_jwt(), f"{head}.{payload}.{signature}")

    def test_one_signed_with_another_secret_or_key(self) -> None:
        assert "signed" in refused(from_jwt(), token("another secret, just as long as it"))
        assert "signed" in refused(from_jwt(pem(rsa_key())), token(rsa_key("other"), "RS256"))

    @pytest.mark.parametrize("name", ["none", "None", "NONE", "nOnE", "", None, 0, [], {}])
    @pytest.mark.parametrize("secret", [None, b"", SECRET.encode()])
    @pytest.mark.parametrize("key", [SECRET, pem(rsa_key())])
    def test_one_that_says_it_needs_no_signature(
        self, key: str, secret: bytes | None, name: Any
    ) -> None:
        assert refused(from_jwt(key), handmade({"alg": name, "typ": "JWT"}, ACME, secret))

    @pytest.mark.parametrize("ending", ["", "\n", "stripped"])
    def test_one_signed_with_the_public_key_as_if_it_were_a_secret(self, ending: str) -> None:
        public = pem(rsa_key()).strip() + (ending if ending != "stripped" else "")
        forged = handmade({"alg": "HS256", "typ": "JWT"}, ACME, public.encode())
        assert refused(from_jwt(pem(rsa_key())), forged) == "its algorithm is not accepted"

    def test_one_of_an_algorithm_that_is_not_the_keys(self) -> None:
        assert "algorithm" in refused(from_jwt(), token(rsa_key(), "RS256"))
        assert "algorithm" in refused(from_jwt(), token(algorithm="HS512"))
        p384 = from_jwt(pem(key_of("ES384")))
        assert "algorithm" in refused(p384, token(key_of("ES256"), "ES256"))

    def test_one_that_brings_its_own_key(self) -> None:
        own = json.loads(jwt.algorithms.RSAAlgorithm.to_jwk(rsa_key("other").public_key()))
        forged = jwt.encode(ACME, rsa_key("other"), "RS256", headers={"jwk": own, "kid": "x"})
        assert "signed" in refused(from_jwt(pem(rsa_key())), forged)

    @pytest.mark.parametrize(
        "text", ["..", "a.b.c", "é.é.é", ". .", "e30.e30.", "e30.e30.e30", "W10.W10.W10"]
    )
    def test_what_has_three_parts_and_is_none(self, text: str) -> None:
        assert refused(from_jwt(), text)

    @given(
        st.dictionaries(
            st.sampled_from(["alg", "kid", "crit", "b64", "typ"]),
            st.one_of(
                st.sampled_from(["HS256", "none", ["b64"], False]),
                st.recursive(st.none() | st.integers() | st.text(), st.lists, max_leaves=3),
            ),
        ),
        st.booleans(),
    )
    def test_no_header_of_a_token_breaks_it(self, head: dict[str, Any], signed: bool) -> None:
        text = handmade(head, ACME, SECRET.encode() if signed else b"another")
        try:
            assert from_jwt()(bearer(text)) == "acme"
        except InvalidCredentials:
            return
        assert signed
        assert head["alg"] == "HS256"

    @given(st.data())
    def test_one_changed_in_a_single_character(self, data: st.DataObject) -> None:
        good = token()
        at = data.draw(st.integers(0, len(good) - 1))
        other = data.draw(st.characters(codec="ascii", categories=["L", "N", "P"]))
        changed = good[:at] + other + good[at + 1 :]
        if changed != good and changed.count(".") == 2:
            assert refused(from_jwt(), changed)

    @pytest.mark.parametrize("depth", [500, 20_000])
    def test_one_nested_deeper_than_can_be_read(self, depth: int) -> None:
        deep = "[" * depth + "]" * depth
        signed = handmade({"alg": "HS256"}, {"x": 1}).split(".")
        head = jwt.utils.base64url_encode(f'{{"alg":"HS256","x":{deep}}}'.encode()).decode()
        assert refused(from_jwt(), f"{head}.{signed[1]}.{signed[2]}")

    def test_two_different_ones_in_one_request(self) -> None:
        twice = [(b"authorization", f"Bearer {token(n=n)}".encode()) for n in (1, 2)]
        with pytest.raises(InvalidCredentials, match="two different ones"):
            from_jwt()(scope_of(*twice))

    def test_a_refused_one_is_not_passed_over_for_another_way(self) -> None:
        ways = Chain([from_jwt(), FromHeader("X-Tenant-ID")])
        with pytest.raises(InvalidCredentials):
            ways(scope(authorization=f"Bearer {token(exp=NOW)}", x_tenant_id="acme"))

    def test_the_reason_fits_a_header_and_never_holds_the_token(self) -> None:
        reason = refused(from_jwt(), token(exp=NOW))
        assert reason == "it has expired"
        assert reason.isascii()
        assert '"' not in reason


class TestWhatIsNoToken:
    @pytest.mark.parametrize(
        "value",
        [
            "",
            "Bearer",
            "Bearer ",
            "Bearer pk_live_1",
            "Bearer a.b",
            "Bearer a.b.c.d.e",
            "Basic a.b.c",
        ],
    )
    def test_other_credentials_name_no_tenant(self, value: str) -> None:
        assert from_jwt()(scope(authorization=value)) is None
        assert from_jwt()(scope()) is None

    @given(st.binary(max_size=60))
    def test_no_bytes_in_a_header_break_it_or_name_a_tenant(self, value: bytes) -> None:
        for sent in (value, b"Bearer " + value, b"Bearer a." + value):
            try:
                assert from_jwt()(scope_of((b"authorization", sent))) is None
            except InvalidCredentials:
                assert sent.count(b".") == 2


class TestTime:
    def test_it_is_good_until_it_expires(self) -> None:
        clock = Clock(NOW + 59.9)
        assert from_jwt(clock=clock)(bearer(token())) == "acme"
        clock.now = NOW + 60
        assert refused(from_jwt(clock=clock), token()) == "it has expired"

    def test_one_that_was_accepted_is_refused_once_it_has_expired(self) -> None:
        clock = Clock()
        resolve, text = from_jwt(clock=clock), token()
        assert resolve(bearer(text)) == resolve(bearer(text)) == "acme"
        clock.now = NOW + 60
        assert refused(resolve, text) == "it has expired"
        assert refused(resolve, text) == "it has expired"

    @pytest.mark.parametrize("name", ["nbf", "iat"])
    def test_it_is_not_good_before_its_time(self, name: str) -> None:
        text = token(SECRET, "HS256", None, **{name: NOW + 10})
        clock = Clock()
        resolve = from_jwt(clock=clock)
        assert refused(resolve, text) == "it is not valid yet"
        clock.now = NOW + 10
        assert resolve(bearer(text)) == "acme"

    def test_clocks_may_differ_by_the_leeway(self) -> None:
        clock = Clock(NOW + 64)
        resolve = from_jwt(clock=clock, leeway=5)
        assert resolve(bearer(token(nbf=NOW + 69))) == "acme"
        assert refused(resolve, token(nbf=NOW + 70)) == "it is not valid yet"
        assert resolve(bearer(token())) == "acme"
        clock.now = NOW + 65
        assert refused(resolve, token()) == "it has expired"

    def test_one_without_expiry_is_refused_unless_it_was_said_otherwise(self) -> None:
        text = token(exp=...)
        assert refused(from_jwt(), text) == "it has no expiry"
        assert from_jwt(require_expiry=False)(bearer(text)) == "acme"

    @pytest.mark.parametrize("name", ["exp", "nbf", "iat"])
    @pytest.mark.parametrize("value", ["1", "soon", True, [], {}, 10**400, 1e300, -(10**30)])
    def test_an_instant_that_is_none_is_refused(self, name: str, value: Any) -> None:
        text = handmade({"alg": "HS256"}, {**ACME, name: value}, SECRET.encode())
        assert refused(from_jwt(), text) in (f"its {name} is no instant", "it is malformed")

    def test_an_expiry_that_no_json_has_is_refused(self) -> None:
        text = handmade({"alg": "HS256"}, {**ACME, "exp": float("inf")}, SECRET.encode())
        assert refused(from_jwt(), text) == "it is malformed"


class TestIssuerAndAudience:
    @pytest.mark.parametrize("expected", ["https://id", ["https://other", "https://id"]])
    def test_the_issuer_must_be_one_of_those_expected(self, expected: str | list[str]) -> None:
        resolve = from_jwt(issuer=expected)
        assert resolve(bearer(token(iss="https://id"))) == "acme"
        for wrong in ("https://evil", "https://id/", ["https://id"], None, ...):
            text = (
                handmade({"alg": "HS256"}, {**ACME, "iss": wrong}, SECRET.encode())
                if (wrong is not ...)
                else token()
            )
            assert refused(resolve, text) == "it is of another issuer"

    @pytest.mark.parametrize("expected", ["orders", ["other", "orders"]])
    def test_the_audience_must_hold_one_of_those_expected(self, expected: str | list[str]) -> None:
        resolve = from_jwt(audience=expected)
        assert resolve(bearer(token(aud="orders"))) == "acme"
        assert resolve(bearer(token(aud=["billing", "orders"]))) == "acme"
        for wrong in ("billing", ["billing"], [], [["orders"]], {"orders": 1}, 5, None, ...):
            text = token(aud=wrong)
            assert refused(resolve, text) == "it is meant for another audience"

    def test_one_meant_for_somebody_is_refused_where_nobody_said_who_this_is(self) -> None:
        assert refused(from_jwt(), token(aud="billing")) == "it is meant for another audience"


class TestClaim:
    @pytest.mark.parametrize(
        ("claim", "claims", "tenant"),
        [
            ("org", {"org": "acme"}, "acme"),
            ("org", {"org": 42}, "42"),
            ("org", {"org": True}, None),
            ("org", {"org": ""}, None),
            ("org", {"org": None}, None),
            ("org", {"org": ["acme"]}, None),
            ("org", {"org": {"id": "acme"}}, None),
            ("org", {}, None),
            ("app.org", {"app": {"org": "acme"}}, "acme"),
            ("app.org", {"app": "org"}, None),
            ("app.org", {"app.org": "literal", "app": {"org": "nested"}}, "literal"),
            ("https://a.example/org", {"https://a.example/org": "acme"}, "acme"),
            (["https://a.example/app", "org"], {"https://a.example/app": {"org": "acme"}}, "acme"),
            (["app.org"], {"app": {"org": "acme"}}, None),
        ],
    )
    def test_the_tenant_is_read_where_the_claim_says(
        self, claim: Any, claims: dict[str, Any], tenant: str | None
    ) -> None:
        resolve, text = from_jwt(claim=claim), token(**claims)
        assert resolve(bearer(text)) == resolve(bearer(text)) == tenant


class TestWhereTheTokenStands:
    def test_another_header_holds_it_with_or_without_a_scheme(self) -> None:
        resolve = from_jwt(header="X-Auth-Assertion")
        assert resolve(scope(x_auth_assertion=token())) == "acme"
        assert resolve(scope(x_auth_assertion=f"Bearer {token()}")) == "acme"
        assert resolve(bearer(token())) is None

    @pytest.mark.parametrize("cookies", ["session={}", "a=1; session={}; b=2", ' session="{}" '])
    def test_a_cookie_holds_it(self, cookies: str) -> None:
        resolve = from_jwt(cookie="session")
        assert resolve(scope(cookie=cookies.format(token()))) == "acme"
        assert resolve(bearer(token())) is None

    def test_cookies_may_be_spread_over_several_headers(self) -> None:
        spread = scope_of((b"cookie", b"a=1"), (b"cookie", f"session={token()}".encode()))
        assert from_jwt(cookie="session")(spread) == "acme"

    def test_a_cookie_set_twice_is_refused_when_it_differs(self) -> None:
        tossed = scope(cookie=f"session={token()}; session={token(n=2)}")
        with pytest.raises(InvalidCredentials, match="two different ones"):
            from_jwt(cookie="session")(tossed)


class TestCost:
    def test_a_verified_token_is_not_verified_again(self, monkeypatch: pytest.MonkeyPatch) -> None:
        verified = 0
        whole = jwt.PyJWS.decode

        def counting(*args: Any, **options: Any) -> Any:
            nonlocal verified
            verified += 1
            return whole(*args, **options)

        monkeypatch.setattr(jwt.PyJWS, "decode", counting)
        resolve, small, large = from_jwt(), token(), token(x="x" * LARGEST_REMEMBERED)
        for _ in range(3):
            assert resolve(bearer(small)) == "acme"
        assert verified == 1
        for _ in range(3):
            assert resolve(bearer(large)) == "acme"
        assert verified == 4


class TestConfiguration:
    @pytest.mark.parametrize(
        ("options", "says"),
        [
            ({"key": None}, "either key= or jwks_url="),
            ({"jwks_url": "https://id.example/keys"}, "either key= or jwks_url="),
            ({"algorithms": ["none"]}, "would accept forged tokens"),
            ({"algorithms": ["HS256", "None"]}, "would accept forged tokens"),
            ({"algorithms": []}, "got none at all"),
            ({"algorithms": ["RS256"]}, "of HS256, HS384, HS512; got RS256"),
            ({"key": pem(rsa_key()), "algorithms": ["RS256", "HS256"]}, "got HS256, RS256"),
            ({"key": pem(key_of("ES384")), "algorithms": "ES256"}, "of ES384; got ES256"),
            ({"key": pem(rsa_key("weak", 1024))}, "at least 2048 bits"),
            ({"key": "-----BEGIN PUBLIC KEY-----\nx\n-----END PUBLIC KEY-----"}, "cannot be read"),
            ({"key": ""}, "got nothing"),
            ({"key": b" \n"}, "got nothing"),
            ({"key": "ssh-rsa AAAA"}, "expected a secret, or a public key in PEM"),
            ({"leeway": -1}, "leeway in seconds from 0"),
            ({"leeway": float("nan")}, "leeway in seconds from 0"),
            ({"issuer": []}, "issuer to name at least one"),
            ({"audience": []}, "audience to name at least one"),
            ({"claim": ""}, "claim to name a claim"),
            ({"claim": []}, "claim to name a claim"),
        ],
    )
    def test_what_cannot_be_or_is_not_safe_is_refused(
        self, options: dict[str, Any], says: str
    ) -> None:
        with pytest.raises(ConfigurationError, match=says):
            FromJWT(**{"key": SECRET, **options})

    def test_a_private_key_is_refused(self) -> None:
        private = rsa_key().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        with pytest.raises(ConfigurationError, match="expected the public key"):
            FromJWT(private)

    def test_a_public_key_on_an_unusual_curve_is_refused(self) -> None:
        key = ec.generate_private_key(ec.SECP224R1()).public_key()
        text = key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
        with pytest.raises(ConfigurationError, match="on the curves"):
            FromJWT(text)

    def test_a_secret_that_can_be_guessed_is_warned_of_once_and_works(self) -> None:
        with pytest.warns(UserWarning, match="a secret of 5 bytes can be guessed") as warned:
            resolve = from_jwt("short")
        assert [one.filename for one in warned] == [__file__]
        assert resolve(bearer(handmade({"alg": "HS256"}, ACME, b"short"))) == "acme"
