"""The secret of a home: a file that its owner alone can read. By it the services of a home know each other, and those who wake each other."""

from __future__ import annotations

import errno
import os
import stat
from contextlib import suppress
from pathlib import Path
from typing import Final

from ..._core.os_errors import explain_os_error
from ..._core.os_files import BINARY, PLAIN, is_private, name_new
from ...errors import PermissionDeniedError

SECRET: Final = "rpc.secret"
_SIZE: Final = 32
known: dict[str, bytes] = {}
"""Path of a secret → content, as this process read it."""


def home_secret(folder: Path) -> bytes:
    """Return the secret of an existing home; the first caller makes it. One that others could have read or written is `PermissionDeniedError`."""
    path = folder / SECRET
    secret = known.get(str(path))
    if secret is None:
        try:
            secret = _read(path)
            if secret is None:
                _make(folder, path, os.urandom(_SIZE))
                secret = _read(path)
        except PermissionDeniedError:  # ours, which is an OSError too
            raise
        except OSError as error:
            raise explain_os_error(error, path) from error
        if secret is None:
            raise PermissionDeniedError(f"{path} went away while it was made: try again")
        known[str(path)] = secret
    return secret


def restore_secret(folder: Path) -> None:
    """Write the secret that this process serves by again, where the home was emptied and nobody has made another."""
    path = folder / SECRET
    secret = known.get(str(path))
    if secret is not None and not path.exists():
        _make(folder, path, secret)


def _read(path: Path) -> bytes | None:
    refusal = PermissionDeniedError(
        f"{path} must be a file that its owner alone can read: chmod 600 it, or delete it so that a new one is made"
    )
    try:
        if path.is_symlink():
            raise refusal
        descriptor = os.open(path, os.O_RDONLY | PLAIN)
    except FileNotFoundError:
        return None
    except OSError as error:
        if error.errno == errno.ELOOP:  # a link
            raise refusal from error
        raise
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode) or not is_private(status):
            raise refusal
        secret = os.read(descriptor, _SIZE + 1)
    finally:
        os.close(descriptor)
    if len(secret) != _SIZE:
        raise PermissionDeniedError(f"{path} does not hold a secret of ours: delete it so that a new one is made")
    return secret


def _make(folder: Path, path: Path, secret: bytes) -> None:
    """Make it in one step: written elsewhere, then named."""
    temporary = folder / f"{SECRET}-{os.getpid()}-{os.urandom(8).hex()}"
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | BINARY, 0o600)
    try:
        with open(descriptor, "wb") as file:
            file.write(secret)
            file.flush()
            os.fsync(descriptor)
        name_new(temporary, path)
    except FileExistsError:
        return  # another was first
    finally:
        with suppress(FileNotFoundError):
            os.unlink(temporary)
