"""Buckets for tests: on moto, or on the store that ``OBJECTSTORE`` names.

``OBJECTSTORE=http://KEY:SECRET@127.0.0.1:7070`` is a store that is compatible with S3, such as versitygw. ``OBJECTSTORE=azurite://127.0.0.1:10000`` is Azurite.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import itertools
import os
import urllib.request
from email.utils import formatdate
from functools import cache
from typing import Any
from urllib.parse import urlsplit

__all__ = ["buckets", "s3", "table"]

_numbers = itertools.count(1)
# those of the emulator are public
_ACCOUNT, _KEY = (
    "devstoreaccount1",
    "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw==",
)


@cache
def s3(url: str) -> Any:
    """Return a client of boto3 on a store."""
    import boto3
    from botocore.config import Config

    parts = urlsplit(url)
    return boto3.client(
        "s3", endpoint_url=f"http://{parts.hostname}:{parts.port}", region_name="us-east-1",
        aws_access_key_id=parts.username, aws_secret_access_key=parts.password,
        config=Config(s3={"addressing_style": "path"}, retries={"max_attempts": 2}),
    )  # fmt: skip


def _container(endpoint: str, name: str) -> None:
    date = formatdate(usegmt=True)
    headers = f"x-ms-date:{date}\nx-ms-version:2021-08-06\n"
    signed = f"PUT{chr(10) * 12}{headers}/{_ACCOUNT}/{_ACCOUNT}/{name}\nrestype:container"
    digest = base64.b64encode(hmac.new(base64.b64decode(_KEY), signed.encode(), hashlib.sha256).digest()).decode()
    request = urllib.request.Request(
        f"{endpoint}/{name}?restype=container", method="PUT",
        headers={"x-ms-date": date, "x-ms-version": "2021-08-06", "Authorization": f"SharedKey {_ACCOUNT}:{digest}", "Content-Length": "0"},
    )  # fmt: skip
    urllib.request.urlopen(request).close()


def buckets(url: str, count: int = 1) -> list[str]:
    """Make buckets, and return their names."""
    names = [f"cr-{os.getpid()}-{next(_numbers)}" for _ in range(count)]
    for name in names:
        if url.startswith("azurite:"):
            _container(f"http://{urlsplit(url).netloc}/{_ACCOUNT}", name)
        else:
            s3(url).create_bucket(Bucket=name)
    return names


def table(url: str, bucket: str, **more: Any) -> dict[str, Any]:
    """Return a component's table for a bucket; a prefix may stand behind its name."""
    parts = urlsplit(url)
    if parts.scheme == "azurite":
        where = {"url": f"az://{bucket}", "endpoint": f"http://{parts.netloc}/{_ACCOUNT}"}
        keys = {"account_name": _ACCOUNT, "account_key": _KEY}
    else:
        where = {
            "url": f"s3://{bucket}",
            "endpoint": f"{parts.scheme}://{parts.hostname}:{parts.port}",
            "region": "us-east-1",
        }
        keys = {"access_key_id": parts.username or "key", "secret_access_key": parts.password or "secret"}
    return {"component": "objectstore", "allow_http": True, **where, **keys, **more}
