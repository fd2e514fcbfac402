"""Patterns that meet the text of others take linear time, whatever is in it."""

from __future__ import annotations

import time

import pytest

from cloud_runtimes._http.http1 import _HEADER
from cloud_runtimes._native.json_limits import check
from cloud_runtimes.codec.payload import content_kind
from cloud_runtimes.errors import InvalidArgumentError, PayloadError
from cloud_runtimes.runtimes._sidecar.stores import is_exact
from cloud_runtimes.spi.sql import scan

QUOTES = b'"' + b'\\"' * 8500 + b'"'


def test_no_text_takes_long(subtests: pytest.Subtests) -> None:
    """Milliseconds, where trying every way took minutes to years."""
    for work in (
        lambda: content_kind("a/b" + " ; " * 80 + "!"),
        lambda: content_kind("a/b" + "; " * 120 + "!"),
        lambda: check(b"[" + b",".join([QUOTES] * 55) + b"]"),
        lambda: check(b'["' + b'\\"' * 500_000),
        lambda: is_exact(b'"' + b'\\"' * 500_000),
        lambda: _HEADER.fullmatch("x:" + " " * 64_000 + "\r"),
        lambda: _HEADER.fullmatch("x:a" + " " * 64_000 + "b"),
        lambda: scan("/*a*/" * 100_000 + "x"),
        lambda: scan("/*a" * 300_000),
        lambda: scan("--\n( " * 100_000 + "x"),
        lambda: scan("SELECT * FROM a" + ".a" * 150_000),
        lambda: scan("SELECT * FROM " + "IF " * 100_000),
    ):
        with subtests.test(work=work):
            begin = time.thread_time()
            try:
                work()
            except (InvalidArgumentError, PayloadError):
                pass
            assert time.thread_time() - begin < 5


def test_parameters_of_media_types(subtests: pytest.Subtests) -> None:
    for text, kind in (
        ("a/json ;; ; charset=utf-8 ;", "bytes"),
        ('application/json ; a="x;\\"y" ;b=c \t', "json"),
        ("text/plain;", "text"),
    ):
        with subtests.test(text=text, kind=kind):
            assert content_kind(text) == kind


def test_values_of_headers(subtests: pytest.Subtests) -> None:
    for line, value in (("x:", ""), ("x: \t", ""), ("x: a \t b  ", "a \t b"), ("x:a", "a"), ("x:\ta,  b", "a,  b")):
        with subtests.test(line=line, value=value):
            match = _HEADER.fullmatch(line)
            assert match is not None
            assert match[2] == value


def test_what_is_no_header(subtests: pytest.Subtests) -> None:
    for line in ("x : a", ": a", "x: a\0", "x: a\rb", "x"):
        with subtests.test(line=line):
            assert _HEADER.fullmatch(line) is None
