"""The signals that end what runs until then."""

from __future__ import annotations

import os
import signal
import threading
import time

from cloud_runtimes._signals import ending_signals


def test_a_signal_sent_twice_at_once_is_one() -> None:
    """As by timeout(1): to the process, and to the group that it is in."""
    before = signal.getsignal(signal.SIGTERM)
    heard: list[int] = []
    with ending_signals(heard.append):
        for pause in (0.002, 0.2, 0):
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(pause)
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
