"""Settings of the component, for its drivers."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, Final

from ...config import setting

PARTS: Final = 10_000
"""Parts of one upload: S3's limit."""
_MIB: Final = 1024 * 1024
_NOT_IN_SEGMENT: Final = re.compile(r"[%/\\]|\.(?=\.*$)")
_URL: Final = re.compile(r"(s3|gs|az)://([A-Za-z0-9][A-Za-z0-9._-]*)(?:/(.*))?", re.DOTALL)


def _options(value: Any) -> tuple[tuple[str, str | bool], ...]:
    if not isinstance(value, dict) or not all(isinstance(each, str | bool) for each in value.values()):
        raise ValueError("expected a table of texts")
    return tuple(sorted(value.items()))


@dataclass(frozen=True, slots=True, kw_only=True)
class ObjectstoreSettings:
    """Settings of the component.

    Without keys the cloud's own chain gives the credentials. On AWS: the variables ``AWS_…``, the web identity of a pod, the container's and the instance's role. On Google: ``GOOGLE_SERVICE_ACCOUNT``, the application default credentials, the metadata server. On Azure: the variables ``AZURE_…``, a workload identity, a managed identity.

    Attributes:
        url: of the bucket, with a prefix of all names if there is one: ``s3://bucket/prefix``, ``gs://bucket``, ``az://container``; ``{name}`` is the name of the store.
        endpoint: URL of a store that is compatible with S3, such as MinIO or Ceph, or of an emulator of Azure.
        region: of an S3 bucket; default: the variable ``AWS_REGION``, else ``us-east-1``.
        access_key_id: the name of a key of S3.
        secret_access_key: the key itself; both or neither.
        session_token: of S3, with keys that end.
        profile: of ``~/.aws``, for S3 on a laptop; needs boto3.
        account_name: of Azure; default: the variable ``AZURE_STORAGE_ACCOUNT_NAME``.
        account_key: of the account on Azure.
        service_account: of Google: a file with its key.
        anonymous: requests are not signed, for a public bucket.
        allow_http: an ``endpoint`` may be ``http://``, without TLS.
        ca_file: certificates in PEM that sign the server's, besides those of the system.
        retries: how often a request that failed in passing is sent again, with growing pauses; the service's own attempts multiply it.
        part_size: bytes of a part of a large file. At most four parts are on their way at once, and a file has at most 10,000.
        exclusive_bytes: largest file that ``overwrite=False`` stores. It is held in memory, since its condition goes with one request.
        max_value_bytes: largest value of state, encoded.
        options: whatever else obstore takes for this cloud, by its names, such as ``virtual_hosted_style_request`` or ``sse_kms_key_id``.
    """

    url: str = setting(None, help="of the bucket and prefix")
    endpoint: str | None = setting(None, help="of a compatible store")
    region: str | None = setting(None, help="of an S3 bucket")
    access_key_id: str | None = setting(None, help="of S3")
    secret_access_key: str | None = setting(None, help="of S3")
    session_token: str | None = setting(None, help="of S3, with keys that end")
    profile: str | None = setting(None, help="of ~/.aws")
    account_name: str | None = setting(None, help="of Azure")
    account_key: str | None = setting(None, help="of Azure")
    service_account: str | None = setting(None, help="of Google: a file with its key")
    anonymous: bool = setting(False, help="requests are not signed")
    allow_http: bool = setting(False, help="without TLS")
    ca_file: str | None = setting(None, help="certificates that sign the server's")
    retries: int = setting(4, help="how often a request is sent again")
    part_size: int = setting(8 * _MIB, help="bytes of a part of a large file")
    exclusive_bytes: int = setting(128 * _MIB, help="largest file for overwrite=False")
    max_value_bytes: int = setting(16 * _MIB, help="largest value of state")
    options: tuple[tuple[str, str | bool], ...] = setting((), parse=_options, help="whatever else obstore takes")

    def __post_init__(self) -> None:
        match = _URL.fullmatch(self.url or "")
        if match is None:
            raise ValueError('give url = "s3://bucket/prefix", or one with gs:// or az://')
        if any(part in ("", ".", "..") or not part.isprintable() for part in (match[3] or "x").rstrip("/").split("/")):
            raise ValueError("the prefix in url must be names with / between them")
        allowed = {
            "s3": ("endpoint", "region", "access_key_id", "secret_access_key", "session_token", "profile"),
            "az": ("endpoint", "account_name", "account_key"),
            "gs": ("service_account",),
        }
        for scheme, names in allowed.items():
            for name in names:
                if getattr(self, name) is not None and name not in allowed[self.scheme]:
                    raise ValueError(f"{name} is for {scheme}://")
        if (self.access_key_id is None) != (self.secret_access_key is None):
            raise ValueError("give access_key_id and secret_access_key together")
        if self.endpoint is not None and not self.endpoint.startswith(("https://", "http://")):
            raise ValueError('endpoint must be a URL, such as "https://minio.example:9000"')
        if self.endpoint is not None and self.endpoint.startswith("http://") and not self.allow_http:
            raise ValueError("endpoint is http://, so nothing is encrypted: give https://, or allow_http = true")
        if not 5 * _MIB <= self.part_size <= 1024 * _MIB:
            raise ValueError("part_size must be 5 MiB to 1 GiB")
        if not 0 <= self.retries <= 100:
            raise ValueError("retries must be 0 to 100")
        if not 1 <= self.exclusive_bytes <= 5 * 1024 * _MIB:
            raise ValueError("exclusive_bytes must be 1 to 5 GiB")
        if not 1 <= self.max_value_bytes <= 1024 * _MIB:
            raise ValueError("max_value_bytes must be 1 to 1 GiB")

    @property
    def scheme(self) -> str:
        """Which cloud: ``s3``, ``gs`` or ``az``."""
        return self.url.partition("://")[0]

    @property
    def bucket(self) -> str:
        """The bucket or container."""
        return self.url.partition("://")[2].partition("/")[0]

    def root(self, name: str) -> str:
        """Return what all keys of a store begin with: nothing, or folders with their ``/``."""
        segment = _NOT_IN_SEGMENT.sub(lambda match: f"%{ord(match[0]):02X}", name)
        prefix = self.url.partition("://")[2].partition("/")[2].rstrip("/").replace("{name}", segment)
        return f"{prefix}/" if prefix else ""
