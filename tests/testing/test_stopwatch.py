"""The seconds that the suites count."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from cloud_runtimes.testing.suites import _stopwatch


def test_what_a_machine_stood_still_for_is_not_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr(_stopwatch, "time", SimpleNamespace(monotonic=lambda: now))
    with _stopwatch.Stopwatch() as watch:
        assert watch.seconds == 0
        for _ in range(10):
            now += 0.05
            assert watch.seconds == pytest.approx(now - 100)
        now += 3
        assert watch.seconds == pytest.approx(0.51)
    assert watch.seconds == pytest.approx(0.51)
