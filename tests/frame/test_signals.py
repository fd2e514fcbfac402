"""The signals that end what runs until then."""

from __future__ import annotations

import os
import signal
import threading
import time

import pytest

from cloud_runtimes._core import os_signals as signals
from cloud_runtimes._core.os_signals import ending_signals
from cloud_runtimes._core.threads import Changes


def test_a_signal_sent_twice_at_once_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """As by timeout(1): to the process, and to the group that it is in."""
    before = signal.getsignal(signal.SIGTERM)
    heard: list[int] = []
    now = 1000.0
    monkeypatch.setattr(signals, "monotonic", lambda: now)
    with ending_signals(heard.append):
        for pause in (0.002, 0.2, 0):
            os.kill(os.getpid(), signal.SIGTERM)
            now += pause
        assert heard == [signal.SIGTERM, signal.SIGTERM]
        os.kill(os.getpid(), signal.SIGINT)
        assert heard == [signal.SIGTERM, signal.SIGTERM, signal.SIGINT]
    assert signal.getsignal(signal.SIGTERM) is before


def test_only_the_main_thread_hears_them() -> None:
    before = signal.getsignal(signal.SIGTERM)

    def run() -> None:
        with ending_signals(lambda number: None):
            assert signal.getsignal(signal.SIGTERM) is before

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()


@pytest.mark.parametrize("timeout", [None, 60])
def test_a_signal_that_interrupts_nothing_ends_the_wait_all_the_same(timeout: float | None) -> None:
    """As one does that comes just before the system's wait: here another thread is given it."""
    changes = Changes()
    heard: list[int] = []

    def handle(number: int) -> None:
        heard.append(number)
        changes.announce()

    late = threading.Event()
    rescue = threading.Timer(20, lambda: (late.set(), changes.announce()))
    rescue.start()
    sender = threading.Timer(0.1, lambda: signal.pthread_kill(threading.get_ident(), signal.SIGTERM))
    with ending_signals(handle):
        ticket = changes.ticket()
        sender.start()
        assert changes.wait(ticket, timeout)
    rescue.cancel()
    for each in (sender, rescue):
        each.join()
    assert heard == [signal.SIGTERM]
    assert not late.is_set()


def test_a_long_wait_of_the_main_thread_ends_in_time() -> None:
    changes = Changes()
    began = time.monotonic()
    assert not changes.wait(changes.ticket(), 0.6)
    assert 0.6 <= time.monotonic() - began < 10
