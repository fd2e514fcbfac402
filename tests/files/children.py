"""Bodies of the processes that the tests start: ``python children.py BODY ARGUMENT…``; they speak over stdout, a line each."""

from __future__ import annotations

import json
import os
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

from cloud_runtimes import CloudRuntimesClient
from cloud_runtimes.errors import AlreadyExistsError

SIZES = (10, 300_000, 5_000_000)


def say(**fields: Any) -> None:
    sys.stdout.write(json.dumps(fields) + "\n")
    sys.stdout.flush()


def most_memory() -> int:
    """Return the most bytes of memory that this program has had; ``ru_maxrss`` would also count what forked it."""
    with open("/proc/self/status", encoding="ascii") as file:
        return next(int(line.split()[1]) * 1024 for line in file if line.startswith("VmHWM"))


def client(path: str, durability: str = "relaxed") -> CloudRuntimesClient:
    table = {"component": "local", "path": path, "durability": durability}
    return CloudRuntimesClient(config={"file": {"store": table}}, timeout=None)


def put_until_killed(path: str) -> None:
    """Replace one file and make another, again and again; content and metadata tell of each other."""
    with client(path) as instance:
        instance.file.put_file("store", "new/first", b"0" * 10, metadata={"digit": "0"})
        say(ready=True)
        number = 0
        while True:
            digit = str(number % 10)
            data = digit.encode() * SIZES[number % 3]
            instance.file.put_file("store", "folder/old", data, metadata={"digit": digit})
            instance.file.put_file("store", f"new/{number}", data, metadata={"digit": digit})
            number += 1


def move_until_killed(path: str) -> None:
    """Move one file to and fro, over another."""
    with client(path) as instance:
        instance.file.move_file("store", "here/a", "there/a")
        instance.file.move_file("store", "there/a", "here/a")
        say(ready=True)
        while True:
            instance.file.move_file("store", "here/a", "there/a")
            instance.file.move_file("store", "there/a", "here/a")


def create(path: str, count: str) -> None:
    """Create files that another process creates too, with folders of their names; say which were made here."""
    made_here = []
    with client(path) as instance:
        instance.file.exists("store", "warm")
        say(ready=True)
        sys.stdin.readline()
        for number in range(int(count)):
            for name in (f"n{number}", f"n{number}/below"):
                try:
                    instance.file.put_file("store", name, path.encode(), overwrite=False)
                    made_here.append(name)
                except AlreadyExistsError:
                    continue
    say(made=made_here)


def put_slowly(path: str) -> None:
    """Put, and wait in the middle for a line."""

    def chunks() -> Iterator[bytes]:
        yield b"first"
        say(ready=True)
        sys.stdin.readline()
        yield b"second"

    with client(path) as instance:
        instance.file.put_file("store", "slow", chunks())
    say(done=True)


def stream(path: str, mebibytes: str) -> None:
    """Move much in and out in every way; say how much more memory that took."""
    count = int(mebibytes)

    def chunks() -> Iterator[bytes]:
        for number in range(count):
            yield bytes([number % 256]) * 1_048_576

    with client(path) as instance:
        instance.file.put_file("store", "warm", b"x")
        instance.file.get_file("store", "warm")
        with instance.file.open_file("store", "warm") as file:
            file.read()
        before = most_memory()
        started = time.monotonic()
        instance.file.put_file("store", "a", chunks())
        put = time.monotonic() - started
        started = time.monotonic()
        total = 0
        with instance.file.open_file("store", "a") as file:
            for chunk in file.chunks():
                total += len(chunk)
        got = time.monotonic() - started
        instance.file.copy_file("store", "a", "b")
        instance.file.delete_file("store", "a")
        with instance.file.open_file("store", "b") as source, instance.file.open_file("store", "c", "wb") as target:
            for chunk in source.chunks():
                target.write(chunk)
        last = instance.file.get_file("store", "c", start=count * 1_048_576 - 5)
        after = most_memory()
        for name in ("b", "c"):
            instance.file.delete_file("store", name)
    say(total=total, growth=after - before, last=list(last), put=put, got=got)


def swap(path: str, outside: str) -> None:
    """Swap a folder and a file for links to the outside and back, until ended."""
    say(ready=True)
    folder, held = os.path.join(path, "folder"), os.path.join(path, "held")
    file = os.path.join(path, "target")

    def attempt(step: Callable[..., Any], *arguments: str) -> None:
        try:
            step(*arguments)
        except OSError:  # a put has made the folder anew in between, or a delete has pruned it
            return

    while True:
        attempt(os.rename, folder, held)
        attempt(os.symlink, outside, folder)
        attempt(os.unlink, folder)
        attempt(os.rename, held, folder)
        shutil.rmtree(held, ignore_errors=True)
        attempt(os.unlink, held)
        for link in (os.path.join(outside, "secret"), "/dev/zero"):
            os.symlink(link, file + ".new")
            os.rename(file + ".new", file)
        with open(file + ".new", "wb") as plain:
            plain.write(b"inside")
        os.rename(file + ".new", file)


if __name__ == "__main__":
    globals()[sys.argv[1]](*sys.argv[2:])
