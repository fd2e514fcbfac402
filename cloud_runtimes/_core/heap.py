"""Settings of glibc for freed memory.

By default it gives large blocks back to the kernel, to be faulted in again for the next ones."""

from __future__ import annotations


def keep_freed(size: int) -> None:
    """Let blocks of up to `size` bytes be used again, and twice as much be kept for that.

    The thresholds follow the largest block that was mapped and freed (mallopt(3), M_MMAP_THRESHOLD), unless the process has set them; other allocators take no notice. Without this, page faults are a fifth of the time that sent events take, and of that of spans.
    """
    bytes(size)  # not touched, so it costs one mmap
