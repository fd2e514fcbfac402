"""The type of Dapr's binding to S3."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from ..types import ComponentType


def _url(parts: Mapping[str, str]) -> str:
    """Return the URL of a bucket.

    Raises:
        ValueError: there is none.
    """
    if not parts.get("bucket"):
        raise ValueError("give metadata bucket, the name of the bucket")
    return f"s3://{parts['bucket']}"


TYPES: Final = {
    "bindings.aws.s3": ComponentType(
        "file",
        "objectstore",
        {
            "accesskey": ("access_key_id", str),
            "disablessl": ("allow_http", str),
            "secretkey": ("secret_access_key", str),
        },
        parts={"bucket": "bucket"},
        url=_url,
        without_effect={
            **dict.fromkeys(
                ("decodebase64", "encodebase64"), "a binding to files is given bytes or base64, and gives bytes"
            ),
            "forcepathstyle": "a request has the bucket in its path",
        },
        refused={
            **dict.fromkeys(
                ("assumerolearn", "assumerolesessionname", "trustanchorarn", "trustprofilearn"),
                "the role of the pod or the machine counts, or accessKey and secretKey",
            ),
            "insecuressl": "give ca_file, by which the server's certificate is checked",
            "storageclass": "give the bucket a lifecycle rule",
        },
        note=(
            "its operations are those of bindings.localstorage: key counts as fileName, list gives names, "
            "base64 is decoded, and there is no presign"
        ),
    )
}
