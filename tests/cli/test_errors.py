"""Errors → a line and an exit code."""

from __future__ import annotations

import pytest

from cloud_runtimes import errors
from cloud_runtimes.cli._errors import UsageError, exit_code, explain


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (errors.InvalidArgumentError("x"), 2),
        (errors.PayloadError("x"), 1),
        (errors.ComponentNotFoundError("x"), 2),
        (UsageError("x"), 2),
        (errors.NotFoundError("x"), 3),
        (errors.MissingFileError("x"), 3),
        (errors.ConflictError("x"), 4),
        (errors.AlreadyExistsError("x"), 4),
        (errors.UnavailableError("x"), 5),
        (errors.DeadlineExceededError("x"), 5),
        (errors.UnsupportedError("x"), 1),
        (errors.InternalError("x"), 1),
        (errors.BulkError("x", failed={1: errors.UnavailableError("y")}), 5),
        (errors.BulkError("x", failed={1: errors.UnavailableError("y"), 2: errors.ConflictError("z")}), 1),
        (OSError(13, "no", "file"), 1),
        (ZeroDivisionError("x"), 1),
    ],
)
def test_exit_codes(error: Exception, code: int) -> None:
    assert exit_code(error) == code
    assert explain(error)


def test_one_line() -> None:
    assert explain(errors.InternalError("a\n  b")) == "a b"
    assert explain(OSError(13, "no", "file")) == "file: no"
    assert explain(ZeroDivisionError("x")) == "ZeroDivisionError: x (--debug shows where)"
