"""Names, metadata and listings that try to break the keys of a bucket, and objects of other programs beside ours."""

from __future__ import annotations

import random
import re
import urllib.request
from datetime import UTC, datetime, timedelta

import pytest

from cloud_runtimes.components.objectstore import pages
from cloud_runtimes.components.objectstore.attributes import Stamp, headers, info
from cloud_runtimes.components.objectstore.names import AREA, Names, before
from cloud_runtimes.errors import ConflictError, InvalidArgumentError, ResourceExhaustedError, UnsupportedError
from cloud_runtimes.spi.file import FileWrite
from cloud_runtimes.state import StateItem
from cloud_runtimes.testing import Api
from tests.support import Figure, Rounds
from tests.support.objectstore import s3

from .conftest import Make

_PARTS = (
    "a", "b", "/", "/", ".", "..", "\\", "%", "%2f", "%00", "\x01", "\t", "\n", "\r", "\x7f", " ", "  ", "+", "?", "#", "&", "=", ";", "*",
    "'", '"', "<", ">", "{", "}", "|", "^", "`", "~", ":", "@", "$", "é", "e\u0301", "ß", "漢", "🎉", "\ufeff", "\u202e", "\x85", "\ufffe",
    "\uffff", "\U0010ffff", "__0x41__", AREA, "crwrite", "CON", "-",
)  # fmt: skip


def hostile(source: random.Random) -> str:
    """Return a name that the service takes."""
    while True:
        name = "".join(source.choices(_PARTS, k=source.randint(1, 8)))
        if all(segment not in ("", ".", "..") for segment in name.split("/")):
            return name


@pytest.mark.promise("H1")
def test_hostile_names(make: Make, api: Api, rounds: Rounds, figure: Figure) -> None:
    source = random.Random(23)
    names = {hostile(source) for _ in range(rounds(60, 1100))}
    client = make()
    for name in names:
        api.call(client.file, "put_file", "s", name, name.encode(), metadata={name: name} if len(name) < 20 else None)
    ordered = sorted(names, key=str.encode)
    assert [each.name for each in api.call(client.file, "list_files", "s")] == ordered
    for name in names:
        assert api.call(client.file, "get_file", "s", name) == name.encode()
    for name in source.sample(ordered, 10):
        details = api.call(client.file, "stat_file", "s", name)
        assert (details.name, details.metadata) == (name, {name: name} if len(name) < 20 else {})
        below = [each for each in ordered if each.startswith(name[:2])]
        listed = api.call(client.file, "list_files", "s", name[:2], limit=5)
        assert [each.name for each in listed] == below[:5]
        after = api.call(client.file, "list_files", "s", after=name, limit=3)
        assert [each.name for each in after] == ordered[ordered.index(name) + 1 :][:3]
        folder = name.rpartition("/")[0]
        level = api.call(client.file, "list_files", "s", f"{folder}/" if folder else "", recursive=False)
        assert name in [each.name for each in level]
    for name in names:
        api.call(client.file, "delete_file", "s", name)
    assert api.call(client.file, "list_files", "s") == []
    if api.name == "sync":
        figure("hostile names in a bucket", f"{len(names):,} stored, listed in order, read and deleted")


@pytest.mark.parametrize("azure", [False, True])
def test_names_and_keys(azure: bool) -> None:
    names = Names("s", "below/", azure)

    source = random.Random(7)
    for _ in range(3000):
        name = hostile(source)
        key = names.key(name)
        assert key.startswith("below/")
        assert names.name(key) == name
        assert before(name) < name
    assert names.name(f"below/{AREA}no hex") is None
    with pytest.raises(InvalidArgumentError, match="shorten"):
        names.key("x" * 1020)


@pytest.mark.parametrize("azure", [False, True])
def test_metadata_and_headers(azure: bool) -> None:
    source = random.Random(7)
    allowed = re.compile(r"[a-z_][a-z0-9_]*" if azure else r"[a-z_][a-z0-9_-]*")
    for _ in range(2000):
        names = [
            source.choice(["crwrite", "my_key", "_0x", "K_0x4b__", "a__", "Content-Type", hostile(source)])
            for _ in "abc"
        ]
        metadata = {name: source.choice(["", " ", hostile(source)]) for name in names}
        stamp = Stamp("f")
        encoded = headers(FileWrite("text/x", metadata), stamp, azure)
        for name, value in encoded.items():
            assert name == "Content-Type" or allowed.fullmatch(name)
            assert value.isascii()
            assert value.isprintable()
        details = info("f", {"size": 1, "e_tag": '"x"', "last_modified": datetime.now(UTC)}, encoded)
        assert details.metadata == metadata
        assert details.etag == stamp.etag('"x"')
    assert list(headers(FileWrite(None, {"my_key": "v"}), Stamp("f"), azure)) == ["crwrite", "my_key", "Content-Type"]
    with pytest.raises(ResourceExhaustedError, match="2048"):
        headers(FileWrite(None, {"k": "ü" * 1000}), Stamp("f"), azure)
    with pytest.raises(InvalidArgumentError, match="content_type"):
        headers(FileWrite("text/x; name=ü"), Stamp("f"), azure)


def test_a_prefix_holds_all(make: Make, objectstore_url: str, bucket: str, api: Api) -> None:
    client, whole = make("/below/here"), make()
    for name in ("f", "d/g", "odd\n"):
        api.call(client.file, "put_file", "s", name, b"x")
    api.call(whole.file, "put_file", "s", "below/here-not", b"x")
    assert [each.name for each in api.call(client.file, "list_files", "s")] == ["d/g", "f", "odd\n"]
    assert [each.name for each in api.call(client.file, "list_files", "s", recursive=False)] == ["d/", "f", "odd\n"]
    assert [each.name for each in api.call(client.file, "list_files", "s", recursive=False, limit=1)] == ["d/"]
    assert api.call(whole.file, "get_file", "s", "below/here/d/g") == b"x"
    api.fails(InvalidArgumentError, "prefix included")(client.file, "put_file", "s", "x" * 1020, b"x")


def test_folders_longer_than_a_page(make: Make, api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pages, "_PAGE", 3)
    client = make()
    names = [f"{folder}/{number}" for folder in "abc" for number in range(7)] + ["a-file", "c0", "odd\x01/f", "z"]
    for name in names:
        client.file.put_file("s", name, b"x")
    entries = ["a-file", "a/", "b/", "c/", "c0", "odd\x01/", "z"]
    for limit in range(1, 9):
        page, paged = api.call(client.file, "list_files", "s", recursive=False, limit=limit), []
        while page:
            paged += [each.name for each in page]
            page = api.call(client.file, "list_files", "s", recursive=False, limit=limit, after=paged[-1])
        assert paged == entries
    assert [each.name for each in api.call(client.file, "list_files", "s", after="b/3", limit=6)] == [
        "b/4", "b/5", "b/6", "c/0", "c/1", "c/2",
    ]  # fmt: skip


def test_objects_of_other_programs(make: Make, objectstore_url: str, bucket: str, api: Api) -> None:
    if objectstore_url.startswith("azurite"):
        pytest.skip("Azurite has no S3")
    foreign, client = s3(objectstore_url), make()
    foreign.put_object(Bucket=bucket, Key="theirs", Body=b"1", ContentType="text/x", Metadata={"my_key": "50% off"})
    details = api.call(client.file, "stat_file", "s", "theirs")
    assert (details.size, details.content_type, details.metadata) == (1, "text/x", {"my_key": "50% off"})
    etags = {details.etag}
    foreign.put_object(Bucket=bucket, Key="theirs", Body=b"2")
    etags.add(api.call(client.file, "stat_file", "s", "theirs").etag)
    # ours, and a copy that takes the stamp along
    api.call(client.file, "put_file", "s", "ours", b"3", content_type="text/y", metadata={"Key": "ü"})
    head = foreign.head_object(Bucket=bucket, Key="ours")
    assert (head["ContentType"], head["ETag"].strip('"') in client.file.stat_file("s", "ours").etag) == ("text/y", True)
    etags.add(client.file.stat_file("s", "ours").etag)
    foreign.copy_object(Bucket=bucket, Key="copied", CopySource={"Bucket": bucket, "Key": "ours"})
    copied = api.call(client.file, "stat_file", "s", "copied")
    assert copied.metadata == {"Key": "ü"}
    etags.add(copied.etag)
    assert len(etags) == 4


def test_urls(make: Make, api: Api, objectstore_url: str) -> None:
    client = make("/below")
    api.call(client.file, "put_file", "s", "a b/ü\n", b"content", content_type="text/x")
    with urllib.request.urlopen(api.call(client.file, "url", "s", "a b/ü\n", expires=60)) as answer:
        assert (answer.read(), answer.headers["Content-Type"]) == (b"content", "text/x")
    put = api.call(client.file, "url", "s", "new", expires=timedelta(minutes=1), method="PUT")
    headers = {"Content-Type": "text/y", **({"x-ms-blob-type": "BlockBlob"} if "azurite" in objectstore_url else {})}
    request = urllib.request.Request(put, data=b"theirs", method="PUT", headers=headers)
    urllib.request.urlopen(request).close()
    assert api.call(client.file, "get_file", "s", "new") == b"theirs"
    assert api.call(client.file, "stat_file", "s", "new").content_type == "text/y"
    for bad in (0, -1, 7 * 86_400 + 1, "60", None, True, timedelta(0)):
        api.fails(InvalidArgumentError, "expires")(client.file, "url", "s", "f", expires=bad)
    api.fails(InvalidArgumentError, "method")(client.file, "url", "s", "f", expires=60, method="DELETE")
    api.fails(InvalidArgumentError, "relative")(client.file, "url", "s", "../f", expires=60)


def test_moving_is_refused_with_a_remedy(make: Make, api: Api) -> None:
    api.fails(UnsupportedError, "copy_file, then delete_file")(make().file, "move_file", "s", "a", "b")


# -- state ------------------------------------------------------------------------


def test_of_many_writers_with_one_etag_one_wins(make: Make, api: Api) -> None:
    client = make()
    for key in ("k", "odd//key"):
        api.call(client.state, "save", "s", key, 0)
        etag = api.call(client.state, "get_item", "s", key).etag
        results = api.together([(client.state, "save", ("s", key, number), {"etag": etag}) for number in range(8)])
        (won,) = (number for number, result in enumerate(results) if result is None)
        assert all(isinstance(result, ConflictError) for result in results if result is not None)
        assert api.call(client.state, "get", "s", key) == won


def test_a_value_that_was_there_before_has_another_etag(make: Make, api: Api) -> None:
    client = make()
    api.call(client.state, "save", "s", "k", "a")
    first = api.call(client.state, "get_item", "s", "k").etag
    for value in ("b", "a"):
        api.call(client.state, "save", "s", "k", value)
    api.fails(ConflictError, "read it again")(client.state, "save", "s", "k", "c", etag=first)


def test_a_key_that_was_deleted_under_a_condition_is_absent(make: Make, api: Api) -> None:
    client = make()
    for key in ("k", "l"):
        api.call(client.state, "save", "s", key, 1)
    etag = api.call(client.state, "get_item", "s", "k").etag
    api.call(client.state, "delete", "s", "k", etag=etag)
    assert api.call(client.state, "get_item", "s", "k") is None
    assert api.call(client.state, "list_keys", "s") == ["l"]
    api.fails(ConflictError)(client.state, "delete", "s", "k", etag=etag)
    api.call(client.state, "save", "s", "k", 2, concurrency="first-write")
    assert api.call(client.state, "list_keys", "s", limit=2) == ["k", "l"]
    api.call(client.state, "save_bulk", "s", [StateItem(key="k", value=3), StateItem(key="l", value=4)])
    assert api.call(client.state, "get", "s", "k") == 3
