"""W3C Trace Context and Baggage, to the letter; the cases of the recommendation's own test suite are among them."""

from __future__ import annotations

import pytest

from cloud_runtimes.errors import InvalidArgumentError
from tests.support import Make

TRACE, SPAN = "12345678901234567890123456789012", "1234567890123456"
GOOD = f"00-{TRACE}-{SPAN}-01"


@pytest.mark.promise("F5")
def test_an_invalid_traceparent_is_ignored(client: Make, subtests: pytest.Subtests) -> None:
    for value in (
        "",
        "00",
        f"00-{TRACE}-{SPAN}",
        f"00-{TRACE}-{SPAN}-01.",
        f"00-{TRACE}-{SPAN}-01-what-the-future-will-be-like",
        f"cc-{TRACE}-{SPAN}-01.what",
        f"ff-{TRACE}-{SPAN}-01",
        f".0-{TRACE}-{SPAN}-01",
        f"0.-{TRACE}-{SPAN}-01",
        f"000-{TRACE}-{SPAN}-01",
        f"0-{TRACE}-{SPAN}-01",
        f"00-{'0' * 32}-{SPAN}-01",
        f"00-.{TRACE[1:]}-{SPAN}-01",
        f"00-{TRACE}1-{SPAN}-01",
        f"00-{TRACE[1:]}-{SPAN}-01",
        f"00-{TRACE[:-1]}A-{SPAN}-01",
        f"00-{TRACE}-{'0' * 16}-01",
        f"00-{TRACE}-{SPAN[1:]}-01",
        f"00-{TRACE}-{SPAN}1-01",
        f"00-{TRACE}-{SPAN}-.0",
        f"00-{TRACE}-{SPAN}-001",
        f"00-{TRACE}-{SPAN}-1",
        GOOD + "\n",
        GOOD + "," + GOOD,
        GOOD.upper().replace("00-", "0A-", 1),
    ):
        with subtests.test(value=value):
            assert client().telemetry.extract({"traceparent": value}) is None


def test_a_valid_traceparent(client: Make, subtests: pytest.Subtests) -> None:
    for headers, flags in (
        ({"traceparent": GOOD}, 1),
        ({"TraceParent": GOOD}, 1),
        ({b"traceparent": GOOD.encode()}, 1),
        ([("Traceparent", GOOD)], 1),
        ({"traceparent": f"  {GOOD}\t"}, 1),
        ({"traceparent": f"00-{TRACE}-{SPAN}-00"}, 0),
        ({"traceparent": f"cc-{TRACE}-{SPAN}-01"}, 1),
        ({"traceparent": f"cc-{TRACE}-{SPAN}-01-what-the-future-will-be-like"}, 1),
    ):
        with subtests.test(headers=headers, flags=flags):
            context = client().telemetry.extract(headers)
            assert context is not None
            assert (context.trace_id, context.span_id, context.trace_flags, context.is_remote) == (
                TRACE,
                SPAN,
                flags,
                True,
            )


@pytest.mark.promise("F5")
def test_a_traceparent_that_stands_twice_is_none(client: Make) -> None:
    telemetry = client().telemetry
    assert telemetry.extract([("traceparent", GOOD), ("traceparent", GOOD)]) is None
    assert telemetry.extract({"traceparent": [GOOD, GOOD]}) is None
    assert telemetry.extract({"tracestate": "a=1"}) is None
    assert telemetry.extract({}) is None


@pytest.mark.promise("F5")
def test_tracestate(client: Make, subtests: pytest.Subtests) -> None:
    for values, expected in (
        (["foo=1,bar=2"], "foo=1,bar=2"),
        (["foo=1", "bar=2"], "foo=1,bar=2"),
        (["foo=1,", " bar=2 ,,"], "foo=1,bar=2"),
        (["foo=1,foo=1"], "foo=1"),
        (["foo=1", "bar=3,foo=2"], "foo=1,bar=3"),
        (["foo=1,foo=?", "foo=\x7f"], ""),
        (["foo =1"], ""),
        (["FOO=1"], ""),
        (["foo.bar=1"], ""),
        (["foo@=1,bar=2"], "foo@=1,bar=2"),
        (["@foo=1,bar=2"], ""),
        (["foo@@bar=1,bar=2"], "foo@@bar=1,bar=2"),
        (["0foo=1"], "0foo=1"),
        (["_foo=1"], ""),
        (["t-0/*_@v-0/*_=1"], "t-0/*_@v-0/*_=1"),
        (["z" * 256 + "=1"], "z" * 256 + "=1"),
        (["z" * 257 + "=1"], ""),
        (["t" * 241 + "@" + "v" * 14 + "=1"], "t" * 241 + "@" + "v" * 14 + "=1"),
        (["t" * 242 + "@v=1"], "t" * 242 + "@v=1"),
        (["t@" + "v" * 255 + "=1"], ""),
        (["foo"], ""),
        (["foo="], ""),
        (["foo=bar=baz"], ""),
        (["foo=" + "x" * 256], "foo=" + "x" * 256),
        (["foo=" + "x" * 257], ""),
        ([",".join(f"bar{n:02d}=1" for n in range(32))], ",".join(f"bar{n:02d}=1" for n in range(32))),
        ([",".join(f"bar{n:02d}=1" for n in range(33))], ""),
        ([",".join(f"bar{n % 32:02d}=1" for n in range(64))], ",".join(f"bar{n:02d}=1" for n in range(32))),
    ):
        with subtests.test(values=values, expected=expected):
            context = client().telemetry.extract([("traceparent", GOOD), *(("tracestate", value) for value in values)])
            assert context is not None
            assert context.trace_state == expected


def test_what_comes_in_goes_on(client: Make) -> None:
    telemetry = client().telemetry
    parent = telemetry.extract({"traceparent": GOOD, "tracestate": "a=1,b=2"})
    headers: dict[str, str] = {}
    telemetry.inject(headers)
    assert headers == {}
    with telemetry.tracer("t").span("s", kind="server", parent=parent) as span:
        telemetry.inject(headers)
    assert headers == {"traceparent": f"00-{TRACE}-{span.context.span_id}-01", "tracestate": "a=1,b=2"}
    with telemetry.tracer("t").span("s", parent=telemetry.extract({"traceparent": GOOD[:-1] + "0"})) as span:
        assert not span.is_recording
        telemetry.inject(headers)
    assert headers["traceparent"].endswith("-00")


def test_flags(client: Make, subtests: pytest.Subtests) -> None:
    for given, goes_on in (("02", "02"), ("03", "03"), ("fe", "02"), ("ff", "03"), ("04", "00")):
        with subtests.test(given=given, goes_on=goes_on):
            telemetry = client().telemetry
            headers: dict[str, str] = {}
            with telemetry.tracer("t").span("s", parent=telemetry.extract({"traceparent": f"{GOOD[:-2]}{given}"})):
                telemetry.inject(headers)
            assert headers["traceparent"].endswith(f"-{goes_on}")


def test_baggage(client: Make) -> None:
    telemetry = client().telemetry
    headers: dict[str, str] = {}
    with telemetry.use_baggage({"user": "é, ;%", "a": ""}), telemetry.use_baggage({"b": "1"}):
        assert telemetry.baggage() == {"user": "é, ;%", "a": "", "b": "1"}
        telemetry.inject(headers)
    assert telemetry.baggage() == {}
    assert headers["baggage"] == "user=%C3%A9%2C%20%3B%25,a=,b=1"
    assert telemetry.extract_baggage(headers) == {"user": "é, ;%", "a": "", "b": "1"}
    assert telemetry.extract_baggage({"Baggage": 'k = v ; p=1 , bad key=1, no, q="x", l=%zz'}) == {"k": "v", "l": "%zz"}
    assert telemetry.extract_baggage({"baggage": "k=" + "x" * 9000}) == {}
    with pytest.raises(InvalidArgumentError), telemetry.use_baggage({"bad key": "1"}):
        pass
