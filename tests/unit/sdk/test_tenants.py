"""How a request tells whose it is, each way by itself; JWTs and domains have files of their own."""

import asyncio
import subprocess
import sys
import textwrap
from copy import deepcopy
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from partywall.errors import ConfigurationError, InvalidCredentials, TenantConflict
from partywall.tenants import (
    FromHeader,
    FromPath,
    FromSubdomain,
    Resolver,
    Scope,
    chain,
    is_tenant_id,
)
from partywall_service.names import TENANT_PATTERN
from partywall_service.names import is_tenant_id as sidecar_takes
from tests.unit.sdk.scopes import scope, scope_of

HEADER, HOST = b"x-tenant-id", b"host"


@pytest.mark.parametrize("text", ["a", "7", "acme", "Acme.eu_1-2", "a" * 128])
def test_a_tenant_id_is_letters_digits_dots_lines_and_hyphens(text: str) -> None:
    assert is_tenant_id(text)


@pytest.mark.parametrize("text", ["", "-a", ".a", "..", "a b", "a/b", "a\n", "é", "٣", "a" * 129])
def test_anything_else_is_no_tenant_id(text: str) -> None:
    assert not is_tenant_id(text)


@given(st.one_of(st.text(max_size=4), st.from_regex(TENANT_PATTERN)))
def test_the_sdk_and_the_sidecar_agree_what_a_tenant_id_is(text: str) -> None:
    assert is_tenant_id(text) == sidecar_takes(text)


class TestFromHeader:
    @pytest.mark.parametrize(
        ("headers", "tenant"),
        [
            ([], None),
            ([(HOST, b"acme")], None),
            ([(HEADER, b"acme")], "acme"),
            ([(HEADER, b" acme\t")], "acme"),
            ([(HEADER, b"")], None),
            ([(HEADER, b" ")], None),
            ([(HEADER, b"acme"), (HEADER, b"acme ")], "acme"),
            ([(HEADER, b""), (HEADER, b"acme")], "acme"),
            ([(HEADER, b"acme, globex")], "acme, globex"),
            ([(HEADER, b"\xff")], "ÿ"),
        ],
    )
    def test_the_value_is_given_as_it_was_sent(
        self, headers: list[tuple[bytes, bytes]], tenant: str | None
    ) -> None:
        assert FromHeader("X-Tenant-ID")(scope_of(*headers)) == tenant

    def test_two_different_values_are_a_conflict(self) -> None:
        with pytest.raises(TenantConflict, match="x-tenant-id"):
            FromHeader("X-Tenant-ID")(scope_of((HEADER, b"acme"), (HEADER, b"globex")))

    @given(st.lists(st.tuples(st.sampled_from([HEADER, HOST]), st.binary(max_size=6)), max_size=4))
    def test_it_never_names_one_of_two(self, headers: list[tuple[bytes, bytes]]) -> None:
        sent = {value.strip(b" \t") for name, value in headers if name == HEADER} - {b""}
        try:
            tenant = FromHeader("X-Tenant-ID")(scope_of(*headers))
        except TenantConflict:
            assert len(sent) > 1
        else:
            assert sent == (set() if tenant is None else {tenant.encode("latin-1")})

    @pytest.mark.parametrize("name", ["", "X Tenant", "X-Tenant:", "Mandant-é"])
    def test_a_name_that_no_header_has_is_refused(self, name: str) -> None:
        with pytest.raises(ConfigurationError, match="FromHeader: expected a header's name"):
            FromHeader(name)


class TestFromSubdomain:
    @pytest.mark.parametrize(
        ("host", "tenant"),
        [
            ("acme.example.com", "acme"),
            ("ACME.Example.COM", "acme"),
            ("acme.example.com:8000", "acme"),
            ("acme.example.com:", "acme"),
            ("acme.example.com.", "acme"),
            ("acme.example.com.:443", "acme"),
            (" acme.example.com ", "acme"),
            ("xn--bcher-kva.example.com", "xn--bcher-kva"),
            ("example.com", None),
            ("www.example.com", None),
            ("API.example.com", None),
            ("admin.example.com", None),
            ("app.example.com", None),
            ("a.b.example.com", None),
            ("evilexample.com", None),
            ("acme.evilexample.com", None),
            ("acme.example.com.evil.org", None),
            (".example.com", None),
            ("..example.com", None),
            ("[::1]:8000", None),
            ("[::1]", None),
            ("10.0.0.1", None),
            ("", None),
            (":8000", None),
            (".", None),
        ],
    )
    def test_the_label_below_the_domain_is_the_tenant(self, host: str, tenant: str | None) -> None:
        assert FromSubdomain("example.com")(scope(host=host)) == tenant

    def test_a_request_without_a_host_names_none(self) -> None:
        assert FromSubdomain("example.com")(scope()) is None

    def test_there_may_be_several_domains_and_one_may_lie_below_another(self) -> None:
        resolve = FromSubdomain("example.com", "eu.example.com", "localhost:8000")
        assert resolve(scope(host="acme.example.com")) == "acme"
        assert resolve(scope(host="acme.eu.example.com")) == "acme"
        assert resolve(scope(host="eu.example.com")) is None
        assert resolve(scope(host="acme.localhost:9000")) == "acme"

    def test_what_is_ignored_can_be_chosen(self) -> None:
        resolve = FromSubdomain("example.com", ignore=["Status"])
        assert resolve(scope(host="status.example.com")) is None
        assert resolve(scope(host="www.example.com")) == "www"
        assert FromSubdomain("example.com", ignore="www")(scope(host="w.example.com")) == "w"

    def test_behind_a_proxy_another_header_can_hold_the_host(self) -> None:
        resolve = FromSubdomain("example.com", header="X-Forwarded-Host")
        sent = scope(host="inner", x_forwarded_host="acme.example.com")
        assert resolve(sent) == "acme"

    def test_two_different_hosts_are_a_conflict(self) -> None:
        with pytest.raises(TenantConflict, match="host"):
            FromSubdomain("example.com")(
                scope_of((HOST, b"acme.example.com"), (HOST, b"globex.example.com"))
            )

    @given(st.binary(max_size=40))
    def test_only_one_label_right_below_the_domain_ever_names_a_tenant(self, host: bytes) -> None:
        for value in (host, host + b".example.com"):
            tenant = FromSubdomain("example.com")(scope_of((HOST, value)))
            if tenant is not None:
                assert "." not in tenant
                assert value.decode("latin-1").strip(" \t").lower().startswith(tenant)

    @pytest.mark.parametrize("domain", ["", ".", "https://example.com", "bücher.example", "a..b"])
    def test_what_is_no_domain_is_refused(self, domain: str) -> None:
        with pytest.raises(ConfigurationError, match="FromSubdomain: expected a domain"):
            FromSubdomain(domain)

    def test_no_domain_at_all_is_refused(self) -> None:
        with pytest.raises(ConfigurationError, match="FromSubdomain: expected the domain"):
            FromSubdomain()


class TestFromPath:
    @pytest.mark.parametrize(
        ("path", "tenant"),
        [
            ("/t/acme/orders", "acme"),
            ("/t/acme/", "acme"),
            ("/t/acme", "acme"),
            ("/t/acme\n", "acme\n"),
            ("/t/ä/x", "ä"),
            ("/t/../x", ".."),
            ("/t/", None),
            ("/t", None),
            ("/t//orders", None),
            ("//t/acme", None),
            ("/x/t/acme", None),
            ("/team/acme", None),
            ("/", None),
            ("", None),
        ],
    )
    def test_the_segment_in_the_tenants_place_is_named(self, path: str, tenant: str | None) -> None:
        assert FromPath("/t/{tenant}")(scope(path)) == tenant

    def test_the_tenant_may_stand_first_or_before_other_segments(self) -> None:
        assert FromPath("/{tenant}")(scope("/acme/orders")) == "acme"
        assert FromPath("/{tenant}/api/")(scope("/acme/api/orders")) == "acme"
        assert FromPath("/{tenant}/api")(scope("/acme/apis")) is None
        assert FromPath("/v1.0/{tenant}")(scope("/v1x0/acme")) is None

    def test_what_the_app_is_mounted_at_comes_before_the_prefix(self) -> None:
        resolve = FromPath()
        assert resolve({**scope("/api/t/acme/x"), "root_path": "/api"}) == "acme"
        assert resolve({**scope("/t/acme/x"), "root_path": "/api"}) == "acme"
        assert resolve({**scope("/apis/t/acme"), "root_path": "/api"}) is None
        assert resolve({**scope("/t/acme/x"), "root_path": "/"}) == "acme"

    @pytest.mark.parametrize("prefix", ["", "/", "/t", "t/{tenant}", "/t{tenant}", "//{tenant}"])
    def test_a_prefix_without_a_place_for_the_tenant_is_refused(self, prefix: str) -> None:
        with pytest.raises(ConfigurationError, match=r"one segment \{tenant\}"):
            FromPath(prefix)

    def test_stripping_moves_the_prefix_into_root_path_and_changes_no_scope(self) -> None:
        given_scope = {**scope("/api/t/acme/orders"), "root_path": "/api"}
        before = deepcopy(given_scope)
        stripped = FromPath(strip=True).stripped(given_scope, "acme")
        assert given_scope == before
        assert stripped == {**before, "root_path": "/api/t/acme"}

    def test_a_root_path_that_the_path_lacks_is_put_back(self) -> None:
        given_scope = {**scope("/t/acme/orders"), "root_path": "/my api"}
        stripped = FromPath(strip=True).stripped(given_scope, "acme")
        assert stripped["root_path"] == "/my api/t/acme"
        assert stripped["path"] == "/my api/t/acme/orders"
        assert stripped["raw_path"] == b"/my%20api/t/acme/orders"

    def test_nothing_is_stripped_that_is_not_this_tenants_or_unless_asked(self) -> None:
        here, elsewhere = scope("/t/acme/orders"), scope("/orders")
        assert FromPath().stripped(here, "acme") is here
        assert FromPath(strip=True).stripped(here, "globex") is here
        assert FromPath(strip=True).stripped(elsewhere, "acme") is elsewhere


def says(tenant: str | None) -> Resolver:
    return lambda _scope: tenant


def says_later(tenant: str | None) -> Resolver:
    async def later(_scope: Scope) -> str | None:
        await asyncio.sleep(0)
        return tenant

    return later


class TestChain:
    def test_the_first_who_knows_is_enough_and_none_is_skipped(self) -> None:
        assert chain([says(None), says("acme"), says(None)])(scope()) == "acme"
        assert chain([says(None), says(None)])(scope()) is None

    def test_it_stays_synchronous_while_nobody_must_be_awaited(self) -> None:
        assert chain([says("acme"), says("acme")])(scope()) == "acme"

    async def test_it_awaits_those_who_must_be(self) -> None:
        for resolvers in (
            [says_later("acme")],
            [says(None), says_later(None), says_later("acme"), says("acme")],
            [says("acme"), says_later(None), says(None)],
        ):
            answer = chain(resolvers)(scope())
            assert answer is not None
            assert not isinstance(answer, str)
            assert await answer == "acme"

    @given(st.lists(st.tuples(st.booleans(), st.sampled_from([None, "a", "b"])), min_size=1))
    def test_two_different_tenants_are_a_conflict_in_whatever_order(
        self, said: list[tuple[bool, str | None]]
    ) -> None:
        one = chain([says_later(name) if late else says(name) for late, name in said])
        named = {name for _, name in said} - {None}

        async def ask() -> str | None:
            answer = one(scope())
            return answer if answer is None or isinstance(answer, str) else await answer

        if len(named) > 1:
            with pytest.raises(TenantConflict, match="two different tenants"):
                asyncio.run(ask())
        else:
            assert asyncio.run(ask()) == (named.pop() if named else None)

    def test_a_refused_token_is_not_passed_over(self) -> None:
        def refuse(_scope: Scope) -> str:
            raise InvalidCredentials("it has expired")

        with pytest.raises(InvalidCredentials):
            chain([says("acme"), refuse])(scope())

    @pytest.mark.parametrize("wrong", [7, ["acme"], b"acme", False])
    async def test_a_resolver_that_gives_something_else_is_told_so(self, wrong: Any) -> None:
        async def later(_scope: Scope) -> Any:
            return wrong

        for resolver in (lambda _scope: wrong, later):
            answer = chain([resolver])(scope())
            assert answer is not None
            assert not isinstance(answer, str)
            with pytest.raises(ConfigurationError, match="must give a tenant's id as a str"):
                await answer

    def test_what_can_be_no_chain_is_refused(self) -> None:
        with pytest.raises(ConfigurationError, match="got none"):
            chain([])
        with pytest.raises(ConfigurationError, match="expected a resolver"):
            chain(["X-Tenant-ID"])  # type: ignore[list-item]  # what is tested


def test_without_pyjwt_everything_imports_and_fromjwt_says_what_to_install() -> None:
    code = """
        import sys
        for name in ("jwt", "cryptography"):
            sys.modules[name] = None  # as if it were not installed
        from partywall.context import current_tenant
        from partywall.tenants import FromDomain, FromHeader, FromJWT, FromPath, FromSubdomain
        from partywall.errors import ConfigurationError
        try:
            FromJWT(key="k" * 32)
        except ConfigurationError as exc:
            print(exc)
    """
    ran = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, check=True
    )
    assert ran.stdout == "FromJWT needs PyJWT: pip install 'partywall[jwt]'\n"


def test_a_name_that_is_not_there_is_missed_as_in_any_module() -> None:
    with pytest.raises(ImportError):
        from partywall.tenants import FromTeaLeaves  # noqa: F401 - what is tested
