"""Types of stores: what is in the process, PostgreSQL, buckets, etcd, and stores of secrets."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final
from urllib.parse import quote, urlencode

from ..types import ComponentType, is_true


def _sqlite_path(text: str) -> str:
    """Return the file of a connection string of SQLite.

    Raises:
        ValueError: it has parameters.
    """
    path = text.removeprefix("file:")
    if path == ":memory:":
        raise ValueError("give a file, or the type with in-memory in its name")
    if "?" in path:
        raise ValueError("give the file without parameters")
    return path


_LOCAL: Final[Mapping[str, ComponentType]] = {
    "bindings.localstorage": ComponentType("file", "local", {"rootpath": ("path", str)}),
    "secretstores.local.env": ComponentType("secret", "env"),
    "secretstores.local.file": ComponentType(
        "secret",
        "config_file",
        {
            "secretsfile": ("path", str),
            "nestedseparator": ("separator", str),
            "multivalued": ("multi_valued", str),
        },
        format="json",
    ),
    "state.sqlite": ComponentType("state", "sqlite", {"connectionstring": ("path", _sqlite_path)}),
}


_PAIR: Final = re.compile(r"\s*(\w+)\s*=\s*('(?:[^'\\]|\\.)*'|(?:[^\s'\\]|\\.)*)\s*")


def postgres_url(text: str) -> str:
    """Return the URL of a connection string of PostgreSQL, which is one or ``name=value`` pairs (libpq, "Connection Strings").

    Raises:
        ValueError: neither; the text, which holds the password, is not told.
    """
    if "://" in text:
        scheme, _, rest = text.partition("://")
        return f"postgresql://{rest}" if scheme == "postgres" else text
    values: dict[str, str] = {}
    position = 0
    while position < len(text):
        match = _PAIR.match(text, position)
        if match is None:
            raise ValueError("expected postgresql://user:password@host/name, or name=value pairs")
        value = match[2][1:-1] if match[2].startswith("'") else match[2]
        values[match[1]] = re.sub(r"\\(.)", r"\1", value)
        position = match.end()
    user, password = values.pop("user", ""), values.pop("password", "")
    host, port = values.pop("host", "localhost"), values.pop("port", "5432")
    name = values.pop("dbname", values.pop("database", user))
    who = quote(user, safe="") + (f":{quote(password, safe='')}" if password else "")
    query = f"?{urlencode(values)}" if values else ""
    return f"postgresql://{who}{'@' if who else ''}{host}:{port}/{quote(name, safe='')}{query}"


_POSTGRES: Final[Mapping[str, ComponentType]] = dict.fromkeys(
    ("bindings.postgres", "bindings.postgresql"),
    ComponentType("database", "sqlalchemy", {"connectionstring": ("url", postgres_url), "url": ("url", postgres_url)}),
)


def _url(parts: Mapping[str, str]) -> str:
    """Return the URL of a bucket.

    Raises:
        ValueError: there is none.
    """
    if not parts.get("bucket"):
        raise ValueError("give metadata bucket, the name of the bucket")
    return f"s3://{parts['bucket']}"


_OBJECTSTORE: Final[Mapping[str, ComponentType]] = {
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


def etcd_url(parts: Mapping[str, str]) -> str:
    """Return the URL of servers.

    Raises:
        ValueError: it cannot be made; no value is told.
    """
    endpoints = [each.strip().rpartition("://")[2].rstrip("/") for each in parts.get("endpoints", "").split(",")]
    if not all(endpoints):
        raise ValueError("give metadata endpoints, host:2379, several with commas")
    return f"{'etcds' if is_true(parts.get('tls') or 'false') else 'etcd'}://{','.join(endpoints)}"


def prefix(text: str) -> str:
    """Return what keys begin with: a slash stands behind it anyway."""
    return text.rstrip("/")


_FILE: Final = "give {}, the name of a file"
_ETCD: Final[Mapping[str, ComponentType]] = {
    "state.etcd": ComponentType(
        "state",
        "etcd",
        {"keyprefixpath": ("prefix", prefix), "maxtxnops": ("max_operations", str)},
        parts={"endpoints": "endpoints", "tlsenable": "tls"},
        url=etcd_url,
        refused={
            "ca": _FILE.format("tls_ca"),
            "cert": _FILE.format("tls_certificate"),
            "key": _FILE.format("tls_key"),
        },
        note="it has keys of its own, which daprd neither reads nor writes",
    )
}


_FIELDS: Final = {"endpoint": ("url", str)}
_REFUSED: Final = {
    **dict.fromkeys(
        ("assumerolearn", "assumerolesessionname", "trustanchorarn", "trustprofilearn"),
        "give profile, the name of one in ~/.aws/config that has the role",
    )
}
_AWS: Final[Mapping[str, ComponentType]] = {
    "secretstores.aws.parameterstore": ComponentType(
        "secret", "aws", _FIELDS, settings={"engine": "parameterstore", "prefix": ""}, refused=_REFUSED
    ),
    "secretstores.aws.secretmanager": ComponentType(
        "secret",
        "aws",
        {**_FIELDS, "multiplekeyvaluespersecret": ("multi_valued", str)},
        settings={"engine": "secretsmanager", "prefix": ""},
        refused=_REFUSED,
    ),
}


def _no_prefix(text: str) -> str:
    if is_true(text):
        raise ValueError("leave it out")
    return ""


_VAULT: Final[Mapping[str, ComponentType]] = {
    "secretstores.hashicorp.vault": ComponentType(
        "secret",
        "vault",
        {
            "cacert": ("ca_file", str),
            "enginepath": ("mount", str),
            "vaultaddr": ("url", str),
            "vaultkvprefix": ("path", str),
            "vaultkvuseprefix": ("path", _no_prefix),
            "vaulttoken": ("token", str),
            "vaulttokenmountpath": ("token_file", str),
        },
        settings={"path": "dapr"},
        refused={
            **dict.fromkeys(("capath", "capem"), "give caCert, the name of a file"),
            "skipverify": "give caCert, by which the server's certificate is checked",
            "tlsservername": "let vaultAddr have the name of the certificate",
            "vaultvaluetype": "leave it out: a secret has its entries",
        },
    )
}

TYPES: Final = {**_LOCAL, **_POSTGRES, **_OBJECTSTORE, **_ETCD, **_AWS, **_VAULT}
