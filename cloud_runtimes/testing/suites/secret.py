"""Conformance of a `SecretDriver`, through the service."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest

from ...client import CloudRuntimesClient
from ...errors import ClosedError, CloudRuntimesError, InvalidArgumentError, NotFoundError, UnsupportedError
from ...secret import Secret
from ..canary import Canary
from ..faces import Face
from ..harness import SecretHarness, requires
from ._base import Call, Suite

__all__ = ["SecretSuite"]

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
]


class SecretSuite(Suite):
    """Every case of Dapr's conformance of secret stores, and those that it misses: absent secrets, stores apart, odd keys and values, rotation, leaks.

    Needs the plugin `cloud_runtimes.testing.canary`, and a `SecretHarness` as ``harness``.
    """

    service = "secret"

    # -- reading ----------------------------------------------------------

    def test_get(self, call: Call, store: str, harness: SecretHarness, canary: Canary) -> None:
        value = canary.value()
        harness.put(store, "db-password", value)
        secret = call("get_secret", "db-password")
        assert type(secret) is Secret
        assert (secret == {"db-password": value}) is True
        assert (secret.value == value) is True

    def test_all_of_a_store(self, call: Call, store: str, harness: SecretHarness, canary: Canary) -> None:
        values = {name: canary.value() for name in ("first", "second", "third")}
        for key, value in values.items():
            harness.put(store, key, value)
        if call.lacks("secret.bulk"):
            with canary.raises(UnsupportedError):
                call("get_bulk_secret")
            return
        found = call("get_bulk_secret")
        assert {type(each) for each in found.values()} == {Secret}
        assert ({key: dict(each) for key, each in found.items()} == {k: {k: v} for k, v in values.items()}) is True
        for key in found:
            assert (call("get_secret", key) == found[key]) is True

    @requires("secret.bulk")
    def test_all_of_an_empty_store(self, call: Call) -> None:
        assert call("get_bulk_secret") == {}

    @requires("secret.bulk")
    def test_the_caller_may_change_what_it_got(
        self, call: Call, store: str, harness: SecretHarness, canary: Canary
    ) -> None:
        harness.put(store, "a", canary.value())
        call("get_bulk_secret").clear()
        assert list(call("get_bulk_secret")) == ["a"]

    @pytest.mark.parametrize("made", [make for _, make in _VALUES], ids=[name for name, _ in _VALUES])
    def test_values_come_as_they_are(
        self, call: Call, store: str, harness: SecretHarness, canary: Canary, made: Callable[[str], str]
    ) -> None:
        value = made(canary.value())
        harness.put(store, "key", value)
        got = call("get_secret", "key").value
        assert type(got) is str
        assert (got == value) is True

    def test_an_empty_value(self, call: Call, store: str, harness: SecretHarness) -> None:
        harness.put(store, "key", "")
        assert call("get_secret", "key").value == ""

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

    # -- what is not there ------------------------------------------------

    def test_an_absent_secret(self, call: Call, store: str, harness: SecretHarness, canary: Canary) -> None:
        harness.put(store, "there", canary.value())
        with canary.raises(NotFoundError) as caught:
            call("get_secret", "not-there")
        error = caught.value
        assert repr(store) in str(error)
        assert "'not-there'" in str(error)
        assert (error.service, error.operation, error.component) == ("secret", "get_secret", store)
        assert not error.retryable

    def test_stores_are_apart(
        self, call: Call, client: CloudRuntimesClient, face: Face, store: str, harness: SecretHarness, canary: Canary
    ) -> None:
        other = harness.store("secret")
        value = canary.value()
        harness.put(store, "key", value)
        with canary.raises(NotFoundError):
            face.call(client.secret, "get_secret", other, "key")
        if not self.lacks(client, "secret.bulk", other):
            assert face.call(client.secret, "get_bulk_secret", other) == {}
        harness.put(other, "key", canary.value())
        assert (call("get_secret", "key").value == value) is True

    def test_a_removed_secret(self, call: Call, face: Face, store: str, harness: SecretHarness, canary: Canary) -> None:
        harness.put(store, "key", canary.value())
        harness.put(store, "other", canary.value())
        call("get_secret", "key")
        harness.remove(store, "key")
        assert face.until(lambda: not self._has(call, "key"))
        assert self._has(call, "other")

    @staticmethod
    def _has(call: Call, key: str) -> bool:
        try:
            call("get_secret", key)
        except NotFoundError:
            return False
        return True

    def test_a_changed_secret(self, call: Call, face: Face, store: str, harness: SecretHarness, canary: Canary) -> None:
        for _ in range(3):
            value = canary.value()
            harness.put(store, "key", value)
            assert face.until(partial(self._is, call, value))

    @staticmethod
    def _is(call: Call, value: str) -> bool:
        return bool(call("get_secret", "key").value == value)

    # -- keys -------------------------------------------------------------

    ODD = ("%", "*", "?", "[a-z]*", "k%", "k_y", "K*Y", "k;y", "key\r\n", "../key", "a/b", "a.b", "a:b", " key", "ключ")

    @pytest.mark.parametrize("key", ODD, ids=ascii)
    def test_a_key_is_no_pattern(
        self, call: Call, store: str, harness: SecretHarness, canary: Canary, key: str
    ) -> None:
        for other in ("key", "k-y", "k1y"):
            harness.put(store, other, canary.value())
        with canary.raises(CloudRuntimesError) as caught:
            call("get_secret", key)
        # a component that has no form for such a key says so
        assert isinstance(caught.value, (NotFoundError, InvalidArgumentError))

    def test_odd_keys_that_the_component_can_hold(
        self, call: Call, store: str, harness: SecretHarness, canary: Canary
    ) -> None:
        values = {key: canary.value() for key in ("a", "a1", "a-b", "x" * 50, *harness.keys)}
        for key, value in values.items():
            harness.put(store, key, value)
        for key, value in values.items():
            assert (call("get_secret", key) == {key: value}) is True
        if not call.lacks("secret.bulk"):
            assert set(call("get_bulk_secret")) == set(values)

    @pytest.mark.parametrize(
        "key", ["", "a\0b", "x" * 1025, "ü" * 513, "\ud800", 5, None, b"key"], ids=lambda key: ascii(key)[:12]
    )
    def test_what_is_no_key(self, call: Call, key: Any) -> None:
        call.fails(InvalidArgumentError)("get_secret", key)

    # -- the frame of a call ----------------------------------------------

    def test_wrong_arguments(self, call: Call) -> None:
        for options in ({"timeout": 0}, {"timeout": "1"}, {"metadata": {"a": 1}}, {"metadata": "x"}):
            call.fails(InvalidArgumentError)("get_secret", "key", **options)
            call.fails((InvalidArgumentError, UnsupportedError))("get_bulk_secret", **options)

    def test_options(
        self, client: CloudRuntimesClient, face: Face, store: str, harness: SecretHarness, canary: Canary
    ) -> None:
        value = canary.value()
        harness.put(store, "key", value)
        given: list[dict[str, Any]] = [{"timeout": None}, {"timeout": 20}, {"metadata": {}}]
        for options in given:
            assert (
                face.call(client.secret, "get_secret", store_name=store, key="key", **options).value == value
            ) is True

    def test_many_at_once(
        self, client: CloudRuntimesClient, face: Face, store: str, harness: SecretHarness, canary: Canary
    ) -> None:
        values = {f"key-{number}": canary.value() for number in range(8)}
        for key, value in values.items():
            harness.put(store, key, value)
        calls: list[tuple[Any, str, tuple[Any, ...], dict[str, Any]]] = [
            (client.secret, "get_secret", (store, key), {}) for key in values for _ in range(4)
        ]
        found = face.together(calls)
        expected = [{key: value} for key, value in values.items() for _ in range(4)]
        assert (found == expected) is True

    def test_another_client(self, call: Call, face: Face, store: str, harness: SecretHarness, canary: Canary) -> None:
        value = canary.value()
        harness.put(store, "key", value)
        second = harness.client()
        assert (face.call(second.secret, "get_secret", store, "key").value == value) is True
        second.close()
        with canary.raises(ClosedError):
            face.call(second.secret, "get_secret", store, "key")
        assert (call("get_secret", "key").value == value) is True
