"""The fields of Dapr's bindings to buckets."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

__all__ = ["FIELDS", "NOTE", "PARTS", "REFUSED", "WITHOUT_EFFECT", "s3_url"]

FIELDS: Final[Mapping[str, tuple[str, Callable[[str], str]]]] = {
    "accesskey": ("access_key_id", str),
    "disablessl": ("allow_http", str),
    "secretkey": ("secret_access_key", str),
}
PARTS: Final = {"bucket": "bucket"}
WITHOUT_EFFECT: Final = {
    **dict.fromkeys(("decodebase64", "encodebase64"), "a binding to files is given bytes or base64, and gives bytes"),
    "forcepathstyle": "a request has the bucket in its path",
}
REFUSED: Final = {
    **dict.fromkeys(
        ("assumerolearn", "assumerolesessionname", "trustanchorarn", "trustprofilearn"),
        "the role of the pod or the machine counts, or accessKey and secretKey",
    ),
    "insecuressl": "give ca_file, by which the server's certificate is checked",
    "storageclass": "give the bucket a lifecycle rule",
}
NOTE: Final = (
    "its operations are those of bindings.localstorage: key counts as fileName, list gives names, base64 is decoded, "
    "and there is no presign"
)


def s3_url(parts: Mapping[str, str]) -> str:
    """Return the URL of a bucket.

    Raises:
        ValueError: there is none.
    """
    if not parts.get("bucket"):
        raise ValueError("give metadata bucket, the name of the bucket")
    return f"s3://{parts['bucket']}"
