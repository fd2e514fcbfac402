"""`Secret`: read by name, and shown by nothing that shows things."""

from __future__ import annotations

import copy
import dataclasses
import io
import json
import logging
import pickle
import pprint
import reprlib
import string
import sys
import traceback
from collections.abc import Callable, Mapping
from typing import Any

import pydantic
import pytest

from cloud_runtimes import CloudRuntimesClient
from cloud_runtimes.codec import json as our_json
from cloud_runtimes.codec import msgpack as our_msgpack
from cloud_runtimes.errors import InvalidArgumentError, PayloadError
from cloud_runtimes.secret import Secret
from cloud_runtimes.testing.canary import Canary


@pytest.fixture
def value(canary: Canary) -> str:
    return canary.value()


@pytest.fixture
def secret(value: str) -> Secret:
    return Secret({"password": value})


# -- a mapping ----------------------------------------------------------------


def test_a_read_only_mapping(secret: Secret, value: str) -> None:
    assert isinstance(secret, Mapping)
    assert list(secret) == ["password"]
    assert len(secret) == 1
    assert secret
    assert "password" in secret
    assert "user" not in secret
    assert (secret["password"] == value) is True
    assert (secret.value == value) is True
    assert (dict(secret) == {"password": value}) is True
    assert secret.get("user") is None
    with pytest.raises(KeyError, match="'user'"):
        secret["user"]
    for change in (
        lambda: secret.__setitem__("a", "b"),  # type: ignore[attr-defined]
        lambda: setattr(secret, "value", "b"),
        lambda: setattr(secret, "other", "b"),
        lambda: secret.clear(),  # type: ignore[attr-defined]
    ):
        with pytest.raises(AttributeError):
            change()


def test_what_it_was_made_of_can_change(canary: Canary) -> None:
    values = {"a": canary.value()}
    secret = Secret(values)
    values["b"] = canary.value()
    assert list(secret) == ["a"]
    assert not Secret({})


def test_value_needs_one_entry(canary: Canary) -> None:
    names = [f"name-{number}" for number in range(12)]
    for given, message in (
        ({}, "0 entries, .* it is empty"),
        ({"user": canary.value(), "password": canary.value()}, "2 entries, .* one by its name, of 'user', 'password'$"),
        ({name: canary.value() for name in names}, "12 entries, .* 'name-9' and 2 more$"),
    ):
        secret = Secret(given)
        with canary.raises(InvalidArgumentError, match=message):
            _ = secret.value


def test_only_text(canary: Canary) -> None:
    for given in ({"a": canary.value().encode()}, {"a": canary.value(), "b": 5}, {"a": canary.value(), 5: "x"}):
        with canary.raises(InvalidArgumentError, match="'a' is bytes|'b' is int|a name is int"):
            Secret(given)  # type: ignore[dict-item]
    for other in (canary.value(), canary.value().encode(), [("a", canary.value())], None, 5):
        with canary.raises(InvalidArgumentError, match="this is (str|bytes|list|NoneType|int)$"):
            Secret(other)  # type: ignore[arg-type]


def test_equality(secret: Secret, value: str) -> None:
    assert secret == Secret({"password": value})
    assert (secret == {"password": value}) is True
    assert ({"password": value} == secret) is True
    for other in (
        Secret({"password": f"{value}x"}),
        Secret({"password": value[:-1]}),
        Secret({"password": "ü" * len(value)}),
        Secret({"Password": value}),
        Secret({"password": value, "user": "u"}),
        Secret({}),
        {"password": None},
        {"password": value.encode()},
        value,
        None,
        5,
    ):
        assert (secret != other) is True
        assert (secret == other) is False
    lone = Secret({"a": "\udcff"})
    assert lone == Secret({"a": "\udcff"})
    with pytest.raises(TypeError, match="unhashable"):
        hash(secret)


def test_names_are_compared_as_digests_are(secret: Secret, value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """All values of equal names are compared, each by `hmac.compare_digest`."""
    seen: list[bool] = []
    from cloud_runtimes.spi import secret

    real = secret.compare_digest

    def counted(one: bytes, other: bytes) -> bool:
        seen.append(real(one, other))
        return seen[-1]

    monkeypatch.setattr(secret, "compare_digest", counted)
    assert (Secret({"a": "1", "b": "2", "c": "3"}) == Secret({"a": "x", "b": "2", "c": "y"})) is False
    assert seen == [False, True, False]


# -- what shows things --------------------------------------------------------


@dataclasses.dataclass
class Holder:
    """Something that has one among its fields."""

    name: str
    secret: Secret


class Model(pydantic.BaseModel):
    """The same, of pydantic."""

    model_config = pydantic.ConfigDict(arbitrary_types_allowed=True)

    secret: pydantic.InstanceOf[Secret]


def _sent_to_a_stream(secret: Secret) -> str:
    stream = io.StringIO()
    print(secret, [secret], {"a": secret}, file=stream)
    pprint.pprint([secret, {"secret": secret}], stream=stream, width=10)
    return stream.getvalue()


def _logged(secret: Secret) -> str:
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(logging.Formatter("%(message)s %(args)s %(secret)s"))
    logger = logging.getLogger("tests.secret")
    logger.addHandler(handler)
    logger.propagate = False
    try:
        logger.error("got %s and %r", secret, secret, extra={"secret": secret})
        logger.error("got %s", secret, extra={"secret": secret})
        logger.error(secret, extra={"secret": secret})
    finally:
        logger.removeHandler(handler)
    assert stream.getvalue().count("<Secret: 'password'>") >= 6
    return stream.getvalue()


def _failed(secret: Secret) -> str:
    held = [secret, {"secret": secret}]
    raise RuntimeError(f"{secret} {held}")


def _traced(secret: Secret) -> str:
    try:
        _failed(secret)
    except RuntimeError as error:
        shown = traceback.TracebackException.from_exception(error, capture_locals=True)
        return "".join(shown.format())
    raise AssertionError


def _by_rich(secret: Secret) -> str:
    console = pytest.importorskip("rich.console").Console(file=io.StringIO(), width=200)
    from rich.pretty import pretty_repr
    from rich.traceback import Traceback

    console.print(secret, Holder("h", secret), {"a": [secret]})
    console.print(pretty_repr({"a": secret, "b": Holder("h", secret)}))
    try:
        _failed(secret)
    except RuntimeError:
        console.print(Traceback(show_locals=True))
    text: str = console.file.getvalue()
    return text


SHOW: dict[str, Callable[[Secret], Any]] = {
    "repr": repr,
    "str": str,
    "ascii": ascii,
    "format": lambda secret: f"{secret} {secret!r} {secret!s} {secret:>50} {format(secret, '')}",
    "str.format": lambda secret: f"{secret} {secret!r} {[secret][0]} {secret:<40}",
    "percent": lambda secret: f"{'%s' % secret} {'%r %s' % (secret, secret)} {'%(a)s' % {'a': secret}}",  # noqa: UP031
    "template": lambda secret: string.Template("$a").substitute(a=secret),
    "views": lambda secret: f"{secret.values()!r} {secret.items()!r} {secret.keys()!r}",
    "containers": lambda secret: repr([secret, (secret,), {"a": secret}]),
    "reprlib": reprlib.repr,
    "pprint": lambda secret: pprint.pformat({"a": [secret]}),
    "stream": _sent_to_a_stream,
    "logging": _logged,
    "traceback": _traced,
    "rich": _by_rich,
    "dataclass": lambda secret: repr(Holder("h", secret)),
    "asdict": lambda secret: repr(dataclasses.asdict(Holder("h", secret))),
    "astuple": lambda secret: repr(dataclasses.astuple(Holder("h", secret))),
    "pydantic": lambda secret: f"{Model(secret=secret)!r} {Model(secret=secret).model_dump()!r}",
    "copy": lambda secret: repr([copy.copy(secret), copy.deepcopy(secret), copy.deepcopy({"a": secret})]),
    "exception": lambda secret: repr(RuntimeError("no", secret)),
    "json, by repr": lambda secret: json.dumps({"a": secret}, default=repr),
    "error trackers": lambda secret: type(secret).__sentry_repr__(secret),
    "names of attributes": lambda secret: repr([(name, getattr(type(secret), name, None)) for name in dir(secret)]),
}


@pytest.mark.promise("H7")
@pytest.mark.parametrize("show", SHOW.values(), ids=SHOW)
def test_nothing_shows_it(secret: Secret, canary: Canary, show: Callable[[Secret], Any]) -> None:
    shown = show(secret)
    assert isinstance(shown, str)
    assert shown
    assert not canary.shows(shown)


def test_its_repr_names_the_entries() -> None:
    assert repr(Secret({"user": "u", "password": "p"})) == "<Secret: 'user', 'password'>"
    assert repr(Secret({})) == "<Secret: empty>"


def test_a_copy_is_itself(secret: Secret) -> None:
    assert copy.copy(secret) is secret
    assert copy.deepcopy({"a": secret})["a"] is secret
    assert dataclasses.asdict(Holder("h", secret))["secret"] is secret


ENCODE: dict[str, Callable[[Any], Any]] = {
    "pickle": pickle.dumps,
    "pickle, oldest": lambda secret: pickle.dumps(secret, 0),
    "pickle, in Python": lambda secret: pickle._dumps(secret),  # type: ignore[attr-defined]
    "getstate": lambda secret: secret.__getstate__(),
    "reduce": lambda secret: secret.__reduce_ex__(2),
    "json": json.dumps,
    "json, as a key": lambda secret: json.dumps({secret: 1}),
    "orjson": lambda secret: pytest.importorskip("orjson").dumps(secret),
    "msgpack": lambda secret: pytest.importorskip("msgpack").packb(secret),
    "vars": vars,
    "our JSON": our_json.encode,
    "our MessagePack": our_msgpack.encode,
    "join": lambda secret: "".join([secret]),
    "concatenation": lambda secret: "password=" + secret,
    "bytes": lambda secret: bytes(secret, "utf-8"),
}


@pytest.mark.parametrize("encode", ENCODE.values(), ids=ENCODE)
@pytest.mark.parametrize("wrap", [lambda secret: secret, lambda secret: [{"a": secret}]], ids=["plain", "nested"])
def test_nothing_encodes_it(
    secret: Secret, canary: Canary, encode: Callable[[Any], Any], wrap: Callable[[Secret], Any]
) -> None:
    given = wrap(secret)
    if given is not secret and encode in [ENCODE[name] for name in ("vars", "getstate", "reduce", "json, as a key")]:
        given = secret
    with canary.raises((TypeError, PayloadError)):  # type: ignore[arg-type]
        encode(given)


def test_no_payload_carries_it(secret: Secret, canary: Canary) -> None:
    with CloudRuntimesClient(config={"capa": {"home": ":memory:"}}) as client:
        for value in (secret, {"a": [secret]}, Holder("h", secret), Model(secret=secret)):
            for content_type in (None, "application/msgpack"):
                with canary.raises(PayloadError, match="Secret|serialize"):
                    client.state.save("s", "k", value, content_type=content_type)
            with canary.raises(PayloadError):
                client.pubsub.publish("b", "t", value)


def test_pickling_says_what_to_do(secret: Secret) -> None:
    with pytest.raises(TypeError, match="cannot be pickled: pass the store's name and the key"):
        pickle.dumps(secret)
    with pytest.raises(TypeError, match="cannot be pickled"):
        secret.__setstate__({})


def test_the_displayhook(secret: Secret, canary: Canary, capsys: pytest.CaptureFixture[str]) -> None:
    sys.__displayhook__([secret])
    assert not canary.shows(capsys.readouterr().out)
