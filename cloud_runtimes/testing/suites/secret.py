"""Conformance of a `SecretDriver`, through the service."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from ...errors import ClosedError, CloudRuntimesError, InvalidArgumentError, NotFoundError, UnsupportedError
from ...secret import Secret
from ..apis import Api
from ..canary import Canary
from ..harness import SecretHarness, requires
from ._base import Call, Suite

Put = Callable[..., str]

_VALUES: list[tuple[str, Callable[[str], str]]] = [
    ("plain", lambda text: text),
    ("spaces", lambda text: f"  {text} # no comment "),
    ("lines", lambda text: f"-----BEGIN KEY-----\n{text}\n\n-----END KEY-----\n"),
    ("quotes", lambda text: f'"{text}\'`"\\'),
    ("shell", lambda text: f"$HOME ${{HOME}} $(id) `id` \\n {text}"),
    ("format", lambda text: f"%s %(a)s {{0}} {{a}} {text}"),
    ("json", lambda text: f'{{"password": "{text}", "n": 1}}'),
    ("equals", lambda text: f"=A={text}=="),
    ("unicode", lambda text: f"пароль 漢字 🎉 {text}"),
    ("long", lambda text: text * 1000),
    ("empty", lambda text: ""),
]


class SecretSuite(Suite):
    """Every case of Dapr's conformance of secret stores, and those that it misses: absent secrets, stores apart, odd keys and values, rotation, leaks.

    Needs the plugin `cloud_runtimes.testing.canary`, and a `SecretHarness` as ``harness``.
    """

    service = "secret"

    @pytest.fixture
    def put(self, store: str, harness: SecretHarness, canary: Canary) -> Put:
        """Set a secret, and return its value."""

        def put(key: str, convert: Callable[[str], str] = str) -> str:
            value = convert(canary.value())
            harness.put(store, key, value)
            return value

        return put

    # a comparison that fails must show no secret, so all are ``is True``

    # -- reading --------------------------------------------------------------

    def test_get(self, call: Call, put: Put) -> None:
        value = put("db-password")
        secret = call("get_secret", "db-password")
        assert type(secret) is Secret
        assert (secret == {"db-password": value}) is True
        assert (secret.value == value) is True

    def test_all_of_a_store(self, call: Call, put: Put, canary: Canary) -> None:
        if call.lacks("secret.bulk"):
            with canary.raises(UnsupportedError):
                call("get_bulk_secret")
            return
        values = {key: put(key) for key in ("first", "second", "third")}
        secrets = call("get_bulk_secret")
        assert {type(each) for each in secrets.values()} == {Secret}
        assert ({key: dict(each) for key, each in secrets.items()} == {k: {k: v} for k, v in values.items()}) is True
        for key in secrets:
            assert (call("get_secret", key) == secrets[key]) is True
        secrets.clear()
        assert set(call("get_bulk_secret")) == set(values), "the caller may change what it got"

    @requires("secret.bulk")
    def test_all_of_an_empty_store(self, call: Call) -> None:
        assert call("get_bulk_secret") == {}

    def test_values_come_as_they_are(
        self, call: Call, put: Put, harness: SecretHarness, subtests: pytest.Subtests
    ) -> None:
        values = {kind: put(f"key-{kind}", convert) for kind, convert in _VALUES if harness.empty or convert("text")}
        for kind, value in values.items():
            with subtests.test(kind):
                got = call("get_secret", f"key-{kind}").value
                assert type(got) is str
                assert (got == value) is True

    def test_several_entries(self, call: Call, store: str, harness: SecretHarness, canary: Canary) -> None:
        if not harness.multiple:
            pytest.skip("a secret of several entries is not declared")
        entries = {"user": canary.value(), "password": canary.value()}
        harness.put_entries(store, "db", entries)
        secret = call("get_secret", "db")
        assert (secret == entries) is True
        with canary.raises(InvalidArgumentError, match="'user', 'password'|'password', 'user'"):
            secret.value  # noqa: B018
        if not call.lacks("secret.bulk"):
            assert (call("get_bulk_secret")["db"] == entries) is True

    # -- absent, removed, changed ---------------------------------------------

    def test_an_absent_secret(self, call: Call, store: str, put: Put, canary: Canary) -> None:
        put("there")
        with canary.raises(NotFoundError) as caught:
            call("get_secret", "not-there")
        error = caught.value
        assert repr(store) in str(error)
        assert "'not-there'" in str(error)
        assert (error.service, error.operation, error.component) == ("secret", "get_secret", store)
        assert not error.retryable

    def test_stores_are_apart(self, call: Call, harness: SecretHarness, put: Put, canary: Canary) -> None:
        store = harness.store("secret")
        other = call.on(store=store)
        value = put("key")
        with canary.raises(NotFoundError):
            other("get_secret", "key")
        if not other.lacks("secret.bulk"):
            assert other("get_bulk_secret") == {}
        harness.put(store, "key", canary.value())
        assert (call("get_secret", "key").value == value) is True

    def test_a_changed_and_a_removed_secret(
        self, call: Call, api: Api, store: str, harness: SecretHarness, put: Put
    ) -> None:
        def has(key: str) -> bool:
            try:
                return bool(call("get_secret", key))
            except NotFoundError:
                return False

        put("other")
        for _ in range(3):
            value = put("key")
            assert api.until(lambda value=value: bool(call("get_secret", "key").value == value))  # type: ignore[misc]
        harness.remove(store, "key")
        assert api.until(lambda: not has("key"))
        assert has("other")

    # -- keys -----------------------------------------------------------------

    ODD = ("%", "*", "?", "[a-z]*", "k%", "k_y", "K*Y", "k;y", "key\r\n", "../key", "a/b", "a.b", "a:b", " key", "ключ")

    def test_a_key_is_no_pattern(self, call: Call, put: Put, canary: Canary, subtests: pytest.Subtests) -> None:
        for other in ("key", "k-y", "k1y"):
            put(other)
        for key in self.ODD:
            with subtests.test(key=key):
                with canary.raises(CloudRuntimesError) as caught:
                    call("get_secret", key)
                # a component that has no form for such a key says so
                assert isinstance(caught.value, (NotFoundError, InvalidArgumentError))

    def test_odd_keys_that_the_component_can_hold(self, call: Call, harness: SecretHarness, put: Put) -> None:
        values = {key: put(key) for key in ("a", "a1", "a-b", "x" * 50, *harness.keys)}
        for key, value in values.items():
            assert (call("get_secret", key) == {key: value}) is True
        if not call.lacks("secret.bulk"):
            assert set(call("get_bulk_secret")) == set(values)

    # -- calls ----------------------------------------------------------------

    def test_options_and_clients(self, call: Call, put: Put, harness: SecretHarness, canary: Canary) -> None:
        value = put("key")
        given: list[dict[str, Any]] = [{"timeout": None}, {"timeout": 20}, {"metadata": {}}]
        for options in given:
            assert (call("get_secret", key="key", **options).value == value) is True
        client = harness.client()
        second = call.on(client)
        assert (second("get_secret", "key").value == value) is True
        client.close()
        with canary.raises(ClosedError):
            second("get_secret", "key")
        assert (call("get_secret", "key").value == value) is True

    def test_many_at_once(self, call: Call, put: Put) -> None:
        secrets = {f"key-{number}": put(f"key-{number}") for number in range(8)}
        results = call.together(*[("get_secret", key) for key in secrets for _ in range(4)])
        assert (results == [{key: value} for key, value in secrets.items() for _ in range(4)]) is True
