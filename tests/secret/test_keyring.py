"""The keyring: what its backends do wrong, and that nothing of it is loaded before it is needed."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from cloud_runtimes.errors import (
    DeadlineExceededError,
    InvalidArgumentError,
    NotFoundError,
    PayloadError,
    PermissionDeniedError,
    UnavailableError,
    UnsupportedError,
)
from cloud_runtimes.testing import Api
from cloud_runtimes.testing.canary import Canary
from tests.support import Make

keyring = pytest.importorskip("keyring")

from keyring.backend import KeyringBackend  # noqa: E402
from keyring.backends import fail  # noqa: E402
from keyring.errors import InitError, KeyringError, KeyringLocked  # noqa: E402


class Scripted(KeyringBackend):  # type: ignore[misc]
    """A fake backend that does what a test says."""

    priority = 0  # type: ignore[assignment]

    def __init__(self, answer: Callable[[str, str], Any]) -> None:
        super().__init__()
        self._answer = answer

    def get_password(self, service: str, username: str) -> Any:
        return self._answer(service, username)

    def set_password(self, service: str, username: str, password: str) -> None:
        raise NotImplementedError


@pytest.fixture
def use() -> Iterator[Callable[[Any], None]]:
    before = keyring.get_keyring()
    yield lambda backend: keyring.set_keyring(backend if isinstance(backend, KeyringBackend) else Scripted(backend))
    keyring.set_keyring(before)


def test_which_entry(use: Any, client: Make, api: Api, canary: Canary) -> None:
    asked: list[tuple[str, str]] = []
    value = canary.value()

    def answer(service: str, username: str) -> str:
        asked.append((service, username))
        return value

    use(answer)
    assert (api.call(client("keyring").secret, "get_secret", "s", "a b").value == value) is True
    api.call(client("keyring", service="my app").secret, "get_secret", "s", "k")
    assert asked == [("s", "a b"), ("my app", "k")]


def test_an_absent_one_says_the_command(use: Any, client: Make, api: Api) -> None:
    use(lambda service, username: None)
    with pytest.raises(NotFoundError, match=r"under the service 'my app': keyring set 'my app' db-password$"):
        api.call(client("keyring", service="my app").secret, "get_secret", "s", "db-password")


def test_it_cannot_list(client: Make, api: Api) -> None:
    app_client = client("keyring")
    assert app_client.supports("secret", "s")
    assert not app_client.supports("secret.bulk", "s")
    api.fails(UnsupportedError, match="get_bulk_secret is not supported by 's'")(
        app_client.secret, "get_bulk_secret", "s"
    )


def test_no_backend(use: Any, client: Make, api: Api) -> None:
    use(fail.Keyring())
    app_client = client("keyring")
    error = api.fails(UnavailableError, match="no keyring that could be used: start one")(
        app_client.secret, "get_secret", "s", "a"
    )
    assert not error.retryable
    api.fails(DeadlineExceededError, match="no keyring")(app_client, "wait_ready", timeout=0.05)
    use(lambda service, username: "x")
    api.call(app_client, "wait_ready")


def test_a_backend_that_fails_is_not_quoted(use: Any, client: Make, api: Api, canary: Canary) -> None:
    for raised, expected, message in (
        (KeyringLocked, PermissionDeniedError, "locked: unlock it"),
        (InitError, UnavailableError, r"the keyring failed \(InitError\)"),
        (KeyringError, UnavailableError, r"failed \(KeyringError\)"),
        (ZeroDivisionError, UnavailableError, r"failed \(ZeroDivisionError\)"),
        (SystemExit, UnavailableError, r"failed \(SystemExit\)"),
    ):

        def answer(service: str, username: str, raised: type[BaseException] = raised) -> str:
            held = canary.value()
            raise raised(f"cannot read {held}")

        use(answer)
        with canary.raises(expected, match=message) as caught:
            api.call(client("keyring").secret, "get_secret", "s", "a")
        assert caught.value.__cause__ is None
        assert caught.value.__context__ is None
        assert "secret 'a' of 's'" in str(caught.value)


def test_what_is_no_text(use: Any, client: Make, api: Api, canary: Canary) -> None:
    use(lambda service, username: canary.value().encode())
    with canary.raises(PayloadError, match="what the keyring holds is no text"):
        api.call(client("keyring").secret, "get_secret", "s", "a")


def test_one_that_asks_the_user(use: Any, client: Make, api: Api, canary: Canary) -> None:
    """The caller's deadline counts, whatever the user does."""
    unlocked = threading.Event()
    value = canary.value()

    def answer(service: str, username: str) -> str:
        unlocked.wait(60)
        return value

    use(answer)
    app_client = client("keyring")
    try:
        with canary.raises(DeadlineExceededError, match="may be asking the user|thread of the client"):
            api.call(app_client.secret, "get_secret", "s", "a", timeout=0.05)
    finally:
        unlocked.set()
    assert (api.call(app_client.secret, "get_secret", "s", "a").value == value) is True


def test_the_package_is_missing(client: Make, api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    app_client = client("keyring")
    monkeypatch.setitem(sys.modules, "keyring", None)
    with pytest.raises(UnsupportedError, match=r'pip install "\.\[keyring\]" in the checkout'):
        api.call(app_client.secret, "get_secret", "s", "a")
    api.fails(UnsupportedError, match="component 'keyring' needs an extra")(app_client, "wait_ready")


@pytest.mark.parametrize("service", ["", "a\0"])
def test_a_service_that_is_none(client: Make, service: str) -> None:
    with pytest.raises(InvalidArgumentError, match="service must not be empty"):
        client("keyring", service=service).secret.get_secret("s", "a")


PROGRAM = """
import sys
from cloud_runtimes import CloudRuntimesClient
with CloudRuntimesClient(config={"secret": {"s": {"component": "keyring"}}}) as client:
    assert client.supports("secret", "s")
    assert "keyring" not in sys.modules
    try:
        print(client.secret.get_secret("s", "a"))
    except Exception as error:
        print(type(error).__name__)
    assert "keyring" in sys.modules
"""


@pytest.mark.process
@pytest.mark.parametrize(
    ("backend", "expected"),
    [("keyring.backends.fail.Keyring", "UnavailableError"), ("keyrings.alt.file.PlaintextKeyring", "NotFoundError")],
)
def test_a_process_of_its_own(tmp_path: Any, backend: str, expected: str) -> None:
    environment = {
        **os.environ,
        "PYTHON_KEYRING_BACKEND": backend,
        "XDG_DATA_HOME": str(tmp_path),
        "HOME": str(tmp_path),
    }
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, timeout=60, env=environment)
    assert (done.stdout, done.stderr) == (f"{expected}\n", "")
