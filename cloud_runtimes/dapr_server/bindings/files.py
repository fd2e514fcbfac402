"""A binding to files, as ``bindings.localstorage`` (dapr/components-contrib)."""

from __future__ import annotations

import base64
import binascii
import uuid
from collections.abc import Mapping
from typing import Final

from ...codec import json
from ...errors import CloudRuntimesError, InvalidArgumentError, MissingFileError
from ...file.service import FileService
from ...spi.file import RANGE
from ..context import Context
from ..limits import Budget

OPERATIONS: Final = ("create", "get", "delete", "list")


async def invoke(
    context: Context, store: str, operation: str, data: bytes, metadata: Mapping[str, str], budget: Budget
) -> bytes | None:
    """Do one of `OPERATIONS` with the file ``fileName`` of the metadata, or ``key``, as ``bindings.aws.s3`` calls it; return the reply's data, ``None``: it has none.

    Raises:
        MissingFileError: there is no such file, or nothing below the folder to list.
        InvalidArgumentError: no name where one is needed, or one that the store does not take.
        DaprError: a file or list is larger than the budget.
    """
    files = context.client.file
    name = _name(metadata.get("fileName") or metadata.get("key", ""))
    if operation == "create":
        name = name or str(uuid.uuid4())
        await files.put_file_async(store, name, _decoded(data))
        return json.encode({"fileName": name})
    if operation == "list":
        return await _list(files, store, name, budget)
    if not name:
        raise InvalidArgumentError(f"metadata fileName is missing: {operation} needs it")
    if operation == "get":
        # one that cannot read a part is behind a sidecar, whose messages are smaller
        can_stop = RANGE in context.driver("file", store).features
        content = await files.get_file_async(store, name, length=budget.allowance[0] + 1 if can_stop else None)
        budget.add(len(content))
        return content
    if not await files.exists_async(store, name):
        raise MissingFileError(f"file not found: {name}")
    await files.delete_file_async(store, name)
    return None


async def _list(files: FileService, store: str, name: str, budget: Budget) -> bytes:
    infos = await files.list_files_async(store, f"{name}/" if name else "", limit=budget.allowance[1] + 1)
    if not infos and name:
        if await files.exists_async(store, name):
            raise InvalidArgumentError(f"unable to list files as the file specified is not a directory: {name}")
        raise MissingFileError(f"there is no directory {name}")
    names: list[bytes] = []
    for info in infos:
        names.append(json.encode(info.name))
        budget.add(len(names[-1]) + 1)
    return b"[" + b",".join(names) + b"]"


def _name(given: str) -> str:
    """Return a name that stays below the root, however it is written, as Dapr's secure join does."""
    parts: list[str] = []
    for part in given.split("/"):
        if part == "..":
            del parts[-1:]
        elif part not in ("", "."):
            parts.append(part)
    return "/".join(parts)


def _decoded(data: bytes) -> bytes:
    """Return what is to be stored: a JSON string is its text, and what is base64 (RFC 4648, section 4) is what that stands for.

    Dapr's component guesses so; who must be understood sends base64.
    """
    if data.startswith(b'"'):
        try:
            data = json.decode(data, type=str).encode()
        except CloudRuntimesError:
            pass
    try:
        return base64.b64decode(data.translate(None, b"\r\n"), validate=True)
    except binascii.Error:
        return data
