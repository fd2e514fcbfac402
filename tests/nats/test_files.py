"""Files beside other clients of the object store, and what writers and servers leave when they die."""

from __future__ import annotations

import base64
import hashlib
import json
import random
import signal
import subprocess
import sys
import threading
import time
import tracemalloc
from collections.abc import Iterator
from typing import Any

import pytest

from cloud_runtimes.components.nats import NatsSettings, objects
from cloud_runtimes.components.nats.engine import NatsEngine
from cloud_runtimes.components.nats.requests import Batch, Flow, Request
from cloud_runtimes.components.nats.versions import CHUNK, WINDOW
from cloud_runtimes.errors import (
    ConflictError,
    DeadlineExceededError,
    InternalError,
    MissingFileError,
    UnavailableError,
    UnsupportedError,
)
from cloud_runtimes.spi import Method, Operation
from cloud_runtimes.testing import Api
from tests.support import Make, Rounds
from tests.support.harnesses.nats import NatsHome
from tests.support.nats import Serve
from tests.support.waiting import running


class Raw:
    """Messages as any other client would send them, to the bucket of the store ``s``."""

    def __init__(self, url: str, prefix: str = "cr") -> None:
        self.engine = NatsEngine.acquire(NatsSettings(url=url))
        self.bucket = f"{prefix}-file-s"

    def request(self, subject: str, data: bytes = b"", **headers: str) -> dict[str, Any]:
        def flow() -> Flow[bytes]:
            named = {name.replace("_", "-"): value for name, value in headers.items()}
            ((message,),) = yield Batch(Request(subject, data, named or None), writes=True)
            return message.data

        op = Operation(Method("test", "raw", repeatable=False), "s", 10.0)
        answer: dict[str, Any] = json.loads(self.engine.run(op, flow()))
        assert "error" not in answer, answer
        return answer

    def api(self, verb: str, **body: Any) -> dict[str, Any]:
        return self.request(f"$JS.API.{verb}.OBJ_{self.bucket}", json.dumps(body).encode() if body else b"")

    def make(self) -> None:
        """Make the bucket as nats-py does."""
        subjects = [f"$O.{self.bucket}.C.>", f"$O.{self.bucket}.M.>"]
        self.api(
            "STREAM.CREATE", name=f"OBJ_{self.bucket}", subjects=subjects, storage="file", discard="new",
            allow_direct=True, allow_rollup_hdrs=True,
        )  # fmt: skip

    def put(self, name: str, chunks: list[bytes], **fields: Any) -> None:
        """Store a file in chunks of these sizes."""
        nuid = base64.b32encode(random.randbytes(13)).decode().rstrip("=")
        for chunk in chunks:
            self.request(f"$O.{self.bucket}.C.{nuid}", chunk)
        digest = base64.urlsafe_b64encode(hashlib.sha256(b"".join(chunks)).digest()).decode()
        self.tell(
            name, nuid=nuid, size=sum(map(len, chunks)), chunks=len(chunks), digest=f"SHA-256={digest}",
            options={"max_chunk_size": CHUNK}, **fields,
        )  # fmt: skip

    def tell(self, name: str, **fields: Any) -> None:
        """Write the message of a name."""
        subject = f"$O.{self.bucket}.M.{base64.urlsafe_b64encode(name.encode()).decode()}"
        meta = {"name": name, "bucket": self.bucket, "mtime": "0001-01-01T00:00:00Z", **fields}
        self.request(subject, json.dumps(meta).encode(), Nats_Rollup="sub")

    def info(self, name: str) -> dict[str, Any]:
        """Return the message of a name."""
        subject = f"$O.{self.bucket}.M.{base64.urlsafe_b64encode(name.encode()).decode()}"
        answer = self.api("STREAM.MSG.GET", last_by_subj=subject)
        meta: dict[str, Any] = json.loads(base64.b64decode(answer["message"]["data"]))
        return meta

    def subjects(self, kind: str) -> list[str]:
        """Return what subjects have messages: ``M.>``, ``C.*``, or ``C._.>``."""
        state = self.api("STREAM.INFO", subjects_filter=f"$O.{self.bucket}.{kind}")["state"]
        return list(state.get("subjects") or ())

    def notes(self) -> list[str]:
        """Return the notes of what may go by now."""
        tokens = [subject.split(".") for subject in self.subjects("C._.>")]
        return [parts[-1] for parts in tokens if int(parts[-2], 16) < time.time() * 1000]

    def content(self, nuid: str) -> list[bytes]:
        """Return the chunks of a version."""
        chunks, sequence = [], 1
        for _ in range(self.told_count(nuid)):
            ask = {"next_by_subj": f"$O.{self.bucket}.C.{nuid}", "seq": sequence}
            message = self.api("STREAM.MSG.GET", **ask)["message"]
            chunks.append(base64.b64decode(message.get("data", "")))
            sequence = message["seq"] + 1
        return chunks

    def told_count(self, nuid: str) -> int:
        subject = f"$O.{self.bucket}.C.{nuid}"
        info = self.api("STREAM.INFO", subjects_filter=subject)
        return int((info["state"].get("subjects") or {}).get(subject, 0))


@pytest.fixture
def raw(home: NatsHome) -> Iterator[Raw]:
    raw_client = Raw(home.server.url, home.prefix)
    yield raw_client
    raw_client.engine.release()


def test_what_others_wrote_is_read(home: NatsHome, raw: Raw, api: Api) -> None:
    """Their chunks have any sizes, where their source gave less than was asked for."""
    raw.make()
    files = home.client().file
    chunks = [random.randbytes(random.choice([1, 70_000, CHUNK])) for _ in range(40)]
    whole = b"".join(chunks)
    raw.put("a/b", chunks, headers={"Content-Type": ["text/csv"]}, metadata={"k": "v"}, description="theirs")
    raw.put("empty", [])
    info = api.call(files, "stat_file", "s", "a/b")
    assert (info.size, info.content_type, info.metadata) == (len(whole), "text/csv", {"k": "v"})
    assert api.call(files, "get_file", "s", "a/b") == whole
    assert api.call(files, "get_file", "s", "empty") == b""
    for start in (0, 1, 69_999, 70_001, len(whole) - 1, 100_000, 5):
        got = api.call(files, "get_file", "s", "a/b", start=start, length=200_000)
        assert got == whole[start : start + 200_000]
    with api.opened(files.open_file("s", "a/b")) as file:
        for start in (1_000_000, 10, 500_000, 2, len(whole) - 5):
            file.seek(start)
            assert api.call(file, "read", 150_000) == whole[start : start + 150_000]
    assert [each.name for each in api.call(files, "list_files", "s")] == ["a/b", "empty"]
    raw.tell("a/b", deleted=True, nuid="", size=0, chunks=0)
    assert [each.name for each in api.call(files, "list_files", "s")] == ["empty"]
    api.fails(MissingFileError)(files, "get_file", "s", "a/b")
    api.fails(UnsupportedError, match="lacks allow_atomic, allow_msg_ttl.*nats stream edit")(
        files, "put_file", "s", "new", b""
    )


def test_what_is_written_has_their_layout(home: NatsHome, raw: Raw, api: Api) -> None:
    files = home.client().file
    data = random.randbytes(2 * WINDOW + CHUNK + 7)
    api.call(files, "put_file", "s", "a b/ü", data, content_type="text/x", metadata={"k": "v"})
    meta = raw.info("a b/ü")
    digest = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).decode()
    assert {name: meta[name] for name in ("name", "bucket", "size", "chunks", "digest", "options", "headers")} == {
        "name": "a b/ü", "bucket": raw.bucket, "size": len(data), "chunks": 18, "digest": f"SHA-256={digest}",
        "options": {"max_chunk_size": CHUNK}, "headers": {"Content-Type": ["text/x"]},
    }  # fmt: skip
    chunks = raw.content(meta["nuid"])
    assert b"".join(chunks) == data
    assert {len(chunk) for chunk in chunks[:-1]} == {CHUNK}
    api.call(files, "move_file", "s", "a b/ü", "b")
    assert raw.info("a b/ü")["deleted"] is True
    assert (raw.info("b")["name"], raw.info("b")["nuid"]) == ("b", meta["nuid"])
    for subject in raw.subjects("C._.>"):
        message = raw.api("STREAM.MSG.GET", last_by_subj=subject)["message"]
        assert b"Nats-TTL: 1s" in base64.b64decode(message["hdrs"])


def test_parts_of_uploads_that_went_on_at_once(home: NatsHome, api: Api) -> None:
    """Their chunks lie between each other, so where one is must be found."""
    files = home.client().file
    contents = [random.randbytes(3 * WINDOW + 1000 * number) for number in range(3)]
    writers = [files.open_file("s", f"f{number}", "wb") for number in range(3)]
    for start in range(0, 4 * WINDOW, CHUNK // 2):
        for writer, content in zip(writers, contents, strict=True):
            api.call(writer, "write", content[start : start + CHUNK // 2])
    for writer in writers:
        api.call(writer, "close")
    api.call(files, "move_file", "s", "f1", "f3")
    for name, content in (("f0", contents[0]), ("f3", contents[1]), ("f2", contents[2])):
        for start in (CHUNK, 5, 2 * WINDOW + 3, len(content) - 1):
            assert api.call(files, "get_file", "s", name, start=start, length=10) == content[start : start + 10]
        with api.opened(files.open_file("s", name)) as file:
            for start in random.sample(range(len(content)), 8):
                file.seek(start)
                assert api.call(file, "read", 300_000) == content[start : start + 300_000]
        assert api.call(files, "get_file", "s", name) == content


def test_a_file_is_never_in_memory(home: NatsHome) -> None:
    files = home.client().file
    megabytes = 24

    def source() -> Iterator[bytes]:
        for number in range(megabytes):
            yield bytes([number]) * 1_000_000

    files.put_file("s", "warm", b"x" * 2_000_000)
    tracemalloc.start()
    files.put_file("s", "f", source())
    with files.open_file("s", "f") as file:
        for number, piece in enumerate(file.chunks(1_000_000)):
            assert piece == bytes([number]) * 1_000_000
    files.copy_file("s", "f", "g")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 10_000_000
    assert files.get_file("s", "g", start=23_500_000) == bytes([23]) * 500_000


@pytest.mark.parametrize("damage", ["digest", "content"])
def test_what_is_not_what_was_stored(home: NatsHome, raw: Raw, api: Api, damage: str) -> None:
    files = home.client().file
    data = random.randbytes(3 * WINDOW)
    api.call(files, "put_file", "s", "f", data)
    meta = raw.info("f")
    if damage == "digest":
        raw.tell(**{**meta, "digest": "SHA-256=" + base64.urlsafe_b64encode(bytes(32)).decode()})
        match, kind = "does not have the digest", InternalError
    else:
        raw.api("STREAM.PURGE", filter=f"$O.{raw.bucket}.C.{meta['nuid']}", keep=20)
        match, kind = "not all of it|lost some", UnavailableError  # type: ignore[assignment]
    api.fails(kind, match=match)(files, "get_file", "s", "f")
    assert api.call(files, "get_file", "s", "f", start=len(data) - 9) == data[-9:]
    with pytest.raises(kind, match=match), api.opened(files.open_file("s", "f")) as file:
        while api.call(file, "read", 1_000_000):
            pass
    raw.tell("f", nuid="a.>", size=1, chunks=1)
    api.fails(InternalError, match="not in the layout")(files, "get_file", "s", "f")
    raw.tell("f", nuid="", size=0, chunks=0, options={"link": {"bucket": "other", "name": "x"}})
    api.fails(UnsupportedError, match="link to other/x")(files, "get_file", "s", "f")


def test_old_versions_go(home: NatsHome, raw: Raw, api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    """Old versions of replaced, deleted and overwritten files are removed. A reader of an old version gets an error."""
    monkeypatch.setattr(objects, "KEPT", 1500)
    monkeypatch.setattr("cloud_runtimes.components.nats.file._SWEEP", 0.0)
    files = home.client().file
    data = random.randbytes(2 * WINDOW)
    for name in ("replaced", "deleted", "moved", "over"):
        api.call(files, "put_file", "s", name, data)
    kept = raw.info("moved")["nuid"]
    with api.opened(files.open_file("s", "deleted")) as file:
        assert api.call(file, "read", 10) == data[:10]
        api.call(files, "put_file", "s", "replaced", b"new")
        api.call(files, "delete_file", "s", "deleted")
        api.call(files, "move_file", "s", "moved", "over")
        assert api.call(file, "read", WINDOW) == data[10 : WINDOW + 10]
        api.pause(1.55)
        api.call(files, "put_file", "s", "another", b"")  # any write may sweep
        new = raw.info("replaced")["nuid"]
        assert api.until(lambda: set(raw.subjects("C.*")) == {f"$O.{raw.bucket}.C.{each}" for each in (kept, new)})
        with pytest.raises(ConflictError, match="open it again"):
            while api.call(file, "read", WINDOW):
                pass
    assert api.until(lambda: not raw.notes())
    assert api.call(files, "get_file", "s", "over") == data


_WRITER = """
import sys
from cloud_runtimes import CloudRuntimesClient
from cloud_runtimes.components.nats import objects
url, prefix = sys.argv[1:]
objects.UPLOAD = 300
client = CloudRuntimesClient(app_id="suite", config={"capa": {"home": {"url": url, "prefix": prefix}}})
file = client.file.open_file("s", "f", "wb")
for number in range(40):
    file.write(bytes(100_000))
print("midway", flush=True)
while True:
    file.write(bytes(100_000))
"""


def test_a_writer_that_is_killed(
    home: NatsHome, raw: Raw, api: Api, monkeypatch: pytest.MonkeyPatch, rounds: Rounds
) -> None:
    monkeypatch.setattr("cloud_runtimes.components.nats.file._SWEEP", 0.0)
    files = home.client().file
    api.call(files, "put_file", "s", "f", b"old")
    old = f"$O.{raw.bucket}.C.{raw.info('f')['nuid']}"
    for _ in range(rounds(1, 50)):
        command = [sys.executable, "-c", _WRITER, home.server.url, home.prefix]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as writer:
            assert writer.stdout is not None
            assert writer.stdout.readline() == "midway\n"
            writer.kill()
        assert len(raw.subjects("C.*")) == 2
        assert api.call(files, "get_file", "s", "f") == b"old"
        assert [each.name for each in api.call(files, "list_files", "s", "f")] == ["f"]
        time.sleep(0.35)
        api.call(files, "put_file", "s", "another", b"")
        assert api.until(lambda: raw.subjects("C.*") == [old])
        assert api.until(lambda: not raw.notes())
    assert api.call(files, "get_file", "s", "f") == b"old"


_REPLACER = """
import itertools, os, sys
from cloud_runtimes import CloudRuntimesClient
from cloud_runtimes.components.nats import objects
url, prefix = sys.argv[1:]
objects.UPLOAD, objects.MARGIN, objects.KEPT = 500, 0, 100
client = CloudRuntimesClient(app_id="suite", config={"capa": {"home": {"url": url, "prefix": prefix}}})
for number in itertools.count():
    name = f"f{number % 4}"
    if number % 7 == 6:
        client.file.delete_file("s", name)
    elif number % 7 == 5:
        client.file.move_file("s", name, "g")
    else:
        client.file.put_file("s", name, os.urandom(1 + number * 7919 % 300_000))
    if number == 8:
        print("going", flush=True)
"""


def test_writers_of_small_files_that_are_killed(
    home: NatsHome, raw: Raw, monkeypatch: pytest.MonkeyPatch, rounds: Rounds
) -> None:
    """Wherever that was: each name tells of what is there, and nothing else is left."""
    monkeypatch.setattr("cloud_runtimes.components.nats.file._SWEEP", 0.0)
    files = home.client().file
    for _ in range(rounds(1, 100)):
        command = [sys.executable, "-c", _REPLACER, home.server.url, home.prefix]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as writer:
            assert writer.stdout is not None
            assert writer.stdout.readline() == "going\n"
            time.sleep(random.random() / 20)
            writer.kill()
        time.sleep(0.55)
        files.put_file("s", "empty", b"")
        end = time.monotonic() + 10
        while set(raw.subjects("C.*")) != {
            f"$O.{raw.bucket}.C.{info.etag}" for info in files.list_files("s") if info.size
        }:
            assert time.monotonic() < end
            time.sleep(0.02)
        for info in files.list_files("s"):
            assert len(files.get_file("s", info.name)) == info.size


def test_an_upload_whose_note_stayed_is_no_loss(
    home: NatsHome, raw: Raw, api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its writer died after the file was stored, and before that was noted."""
    monkeypatch.setattr("cloud_runtimes.components.nats.file._SWEEP", 0.0)
    files = home.client().file
    first = api.call(files, "put_file", "s", "f", b"first").etag
    second = api.call(files, "put_file", "s", "f", b"second").etag
    api.call(files, "move_file", "s", "f", "g")
    raw.request(f"$O.{raw.bucket}.C._.new.1.{second}", first.encode())
    api.call(files, "put_file", "s", "another", b"")
    assert api.until(lambda: not raw.notes())
    assert raw.told_count(first) == 0
    assert api.call(files, "get_file", "s", "g") == b"second"


def test_an_upload_that_takes_too_long(home: NatsHome, raw: Raw, api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    files = home.client().file
    monkeypatch.setattr(objects, "UPLOAD", objects.MARGIN - 1)
    file = files.open_file("s", "f", "wb")
    api.call(file, "write", bytes(3 * WINDOW))
    api.fails(ConflictError, match="took too long")(file, "close")
    assert not api.call(files, "exists", "s", "f")


def test_what_is_given_up_goes_at_once(home: NatsHome, raw: Raw, api: Api) -> None:
    files = home.client().file
    with pytest.raises(ZeroDivisionError), api.opened(files.open_file("s", "f", "wb")) as file:
        api.call(file, "write", bytes(3 * WINDOW))
        assert raw.subjects("C.*")
        raise ZeroDivisionError
    assert api.until(lambda: not raw.subjects("C.*"))


def test_servers_that_die_meanwhile(served: Serve, client: Make, api: Api) -> None:
    """Writers and readers go on with the server, or say that they cannot; a file is whole or not there."""
    server = served(jetstream={"sync_interval": "always"})
    files = client(server.url).file
    data = random.randbytes(4 * WINDOW)
    api.call(files, "put_file", "s", "f", data)
    writer, reader = files.open_file("s", "g", "wb"), files.open_file("s", "f")
    api.call(writer, "write", data[: 2 * WINDOW])
    assert api.call(reader, "read", WINDOW) == data[:WINDOW]
    server.kill()
    assert not api.fails(UnavailableError)(files, "put_file", "s", "h", b"x").maybe_applied
    server.start()
    assert api.call(reader, "read") == data[WINDOW:]
    api.call(writer, "write", data[2 * WINDOW :])
    assert not api.call(files, "exists", "s", "g")
    api.call(writer, "close")
    assert api.call(files, "get_file", "s", "g") == data
    assert [each.name for each in api.call(files, "list_files", "s")] == ["f", "g"]


def test_a_server_that_stands_still(served: Serve, client: Make, api: Api) -> None:
    """Uploaded chunks are not part of a file until the message of its name is written."""
    server = served()
    files = client(server.url).file
    api.call(files, "put_file", "s", "f", b"old")
    server.signal(signal.SIGSTOP)
    try:
        error = api.fails(DeadlineExceededError)(files, "put_file", "s", "f", iter([bytes(3 * WINDOW)]), timeout=0.2)
    finally:
        server.signal(signal.SIGCONT)
    assert not error.maybe_applied
    assert api.call(files, "get_file", "s", "f") == b"old"


def test_a_chunk_is_sent_once(served: Serve, client: Make, api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    """However long it takes to be acknowledged: a second one would be part of the file."""
    for name in ("_ANSWER", "_WRITTEN"):
        monkeypatch.setattr(f"cloud_runtimes.components.nats.engine.{name}", 0.05)
    server = served()
    files, data = client(server.url).file, random.randbytes(4 * WINDOW)
    with api.opened(files.open_file("s", "f", "wb")) as writer:
        api.call(writer, "write", data[: 2 * WINDOW])
        server.signal(signal.SIGSTOP)
        with running(threading.Timer(0.3, server.signal, [signal.SIGCONT])):
            api.call(writer, "write", data[2 * WINDOW :])
    assert api.call(files, "get_file", "s", "f") == data


def test_a_bucket_that_is_deleted(home: NatsHome, raw: Raw, api: Api) -> None:
    files = home.client().file
    before = api.call(files, "put_file", "s", "f", bytes(2 * WINDOW))
    with api.opened(files.open_file("s", "f")) as file:
        api.call(file, "read", 10)
        raw.api("STREAM.DELETE")
        api.fails(Exception, match=r"stream|removed")(file, "read", 3 * WINDOW)
    assert api.call(files, "list_files", "s") == []  # it is made again
    assert api.call(files, "put_file", "s", "f", b"new").etag != before.etag
    assert api.call(files, "get_file", "s", "f") == b"new"
