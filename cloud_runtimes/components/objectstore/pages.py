"""Pages of a listing.

obstore refuses a page whole for one key that it cannot take, reads an answer of any length, and never ends a listing that does not go on. So pages of S3 are requested and read here. obstore signs the requests, since it finds the credentials. Google and Azure, requests through a proxy, and options that change requests are left to obstore.
"""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Final, NamedTuple
from urllib.parse import unquote

from ..._core.backoff import Backoff
from ...errors import InternalError, ResourceExhaustedError
from .bucket import Bucket, Flow, Step
from .failures import Refusal
from .names import cut

_PAGE: Final = 1000
"""Keys of one answer of a bucket."""
_EMPTY: Final = 100
"""Pages without a key that may follow each other."""
_MEMORY: Final = 512 * 1024 * 1024
"""Bytes that the entries of one listing may take, about."""
_ENTRY: Final = 512


class Listed(NamedTuple):
    """A key, and what a listing tells of its object."""

    key: str
    size: int
    modified: datetime


class Page(NamedTuple):
    """Objects in the order of their keys, and the folders of a level."""

    objects: Sequence[Listed]
    folders: Sequence[str] = ()
    token: str | None = None


class Pages:
    """The pages of a listing below a folder, behind a key; of one level where ``level``.

    Attributes:
        ended: no page follows the last one.
    """

    def __init__(self, bucket: Bucket, folder: str | None, after: str | None = None, *, level: bool = False) -> None:
        self._bucket = bucket
        self._folder = folder
        self._after = None if after is None else cut(after)  # stores repeat it, in XML that has no form for all
        self._level = level
        self._last = ""
        self._empty = 0
        self._bytes = 0
        self._source: Any = None
        self._token: str | None = None
        self.ended = False

    def next(self) -> Flow[Page | None]:
        """Return the next page; ``None``: there is none."""
        while not self.ended:
            page = yield from (self._requested() if self._bucket.signs else self._taken())
            self._check(page)
            if page.objects or page.folders:
                return page
        return None

    def _check(self, page: Page) -> None:
        """Refuse a listing that has no end."""
        where = self._bucket.where
        keys = [each.key for each in page.objects]
        last = max([*keys, *page.folders], default="")
        self._empty = 0 if last else self._empty + 1
        if self._empty > _EMPTY or (last and last <= self._last):
            raise InternalError(f"{where}: the store's listing does not go on, but repeats what it said")
        self._last = last or self._last
        self._bytes += sum(len(each) + _ENTRY for each in (*keys, *page.folders))
        if self._bytes > _MEMORY:
            raise ResourceExhaustedError(f"{where}: too many files for one listing: list them by limit and after")

    def _taken(self) -> Flow[Page]:
        """Take a page from obstore."""
        if self._level:
            self.ended = True
            level = yield Step("list_with_delimiter", (self._folder,))
            return Page(_listed(level["objects"]), [f"{each}/" for each in level["common_prefixes"]])
        if self._source is None:
            self._source = yield Step("list", (self._folder,), {"offset": self._after, "chunk_size": _PAGE})
        chunk = yield Step("next", on=self._source)
        self.ended = not chunk
        return Page(_listed(chunk or ()))

    def _requested(self) -> Flow[Page]:
        query = {"list-type": "2", "encoding-type": "url", "max-keys": str(_PAGE)}
        if self._folder:
            query["prefix"] = f"{self._folder}/"
        if self._level:
            query["delimiter"] = "/"
        if self._token is not None:
            query["continuation-token"] = self._token
        elif self._after:
            query["start-after"] = self._after
        page = _page(self._bucket.where, (yield from _asked(self._bucket, "GET", query)))
        self.ended = page.token is None
        self._token = page.token
        return page


def _listed(objects: Sequence[Mapping[str, Any]]) -> list[Listed]:
    return [Listed(each["path"], each["size"], each["last_modified"]) for each in objects]


def look(bucket: Bucket) -> Flow[None]:
    """Look whether the bucket is there."""
    if bucket.signs:
        yield from _asked(bucket, "HEAD", {})
        return
    stream = yield Step("list", (None,), {"chunk_size": 1})
    yield Step("next", on=stream)


def _asked(bucket: Bucket, method: str, query: Mapping[str, str]) -> Flow[bytes]:
    """Make a request for the bucket, again while the store fails in passing."""
    pause = Backoff(0.1, 5.0)
    for _ in range(bucket.settings.retries):
        try:
            return (yield Step("request", (method, query)))  # type: ignore[no-any-return]
        except Refusal as error:
            if not error.passes:
                raise
        yield pause.next()
    return (yield Step("request", (method, query)))  # type: ignore[no-any-return]


def _page(where: str, data: bytes) -> Page:
    """Read an answer to ListObjectsV2."""
    try:
        if b"<!DOCTYPE" in data:
            raise ValueError
        root = ElementTree.fromstring(data)  # noqa: S314  # without a DOCTYPE
        space = root.tag.removesuffix("ListBucketResult")
        decode = unquote if root.findtext(f"{space}EncodingType") == "url" else str
        objects = [
            Listed(
                decode(each.findtext(f"{space}Key", "")),
                int(each.findtext(f"{space}Size", "0")),
                datetime.fromisoformat(each.findtext(f"{space}LastModified", "")),
            )
            for each in root.iterfind(f"{space}Contents")
        ]
        folders = [decode(each.findtext(f"{space}Prefix", "")) for each in root.iterfind(f"{space}CommonPrefixes")]
        truncated = root.findtext(f"{space}IsTruncated") == "true"
        return Page(objects, folders, root.findtext(f"{space}NextContinuationToken") if truncated else None)
    except (ElementTree.ParseError, ValueError):
        pass  # its text may quote what the server said
    raise InternalError(f"{where}: the store does not answer a listing as S3 does")
