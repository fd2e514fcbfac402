"""Error table of this component: maps obstore's errors to ours.

Their texts quote URLs, queries and the server's reply, so only codes from a text leave this module.
"""

from __future__ import annotations

import re
from typing import Final

from obstore import exceptions

from ...errors import (
    CloudRuntimesError,
    ConflictError,
    InternalError,
    InvalidArgumentError,
    NotFoundError,
    PermissionDeniedError,
    ResourceExhaustedError,
    UnauthenticatedError,
    UnavailableError,
    UnsupportedError,
)
from ...spi.operation import Operation

ELSEWHERE: Final = "127.0.0.1:0"
"""Where requests to other hosts than the store's go: nobody can listen there."""

_STATUS: Final = re.compile(r"status code: (\d{3})")
_CODE: Final = re.compile(r"<Code>([A-Za-z0-9]{1,64})</Code>")
_KEY: Final = re.compile(r'Error parsing Path "([^"]{1,1024})"')
_BUCKET: Final = frozenset({"NoSuchBucket", "ContainerNotFound", "ContainerBeingDeleted"})
_LOGIN: Final = frozenset(
    {
        "InvalidAccessKeyId", "SignatureDoesNotMatch", "ExpiredToken", "InvalidToken", "TokenRefreshRequired",
        "AuthenticationFailed", "InvalidAuthenticationInfo", "AuthenticationRequired", "ExpiredAuthenticationToken",
    }
)  # fmt: skip
_SAME_NAME: Final = frozenset({"ObjectParentIsFile", "ExistingObjectIsDirectory"})
_THROTTLED: Final = frozenset({"SlowDown", "ServerBusy", "TooManyRequests", "RequestLimitExceeded"})
_CHAIN: Final = re.compile(
    r"169\.254\.|metadata\.google|/latest/|/oauth2/|sts[.:/]|[Cc]redential|[Tt]oken request|service.account",
    re.IGNORECASE,
)


class Refusal(Exception):
    """A status of the store other than 200; ``passes``: perhaps another request gets another one."""

    def __init__(self, status: int, body: bytes) -> None:
        super().__init__(f"status code: {status}", body)
        self.passes = status == 429 or status >= 500

    def __str__(self) -> str:
        line, body = self.args
        return f"{line} {body.decode(errors='replace')}"


def _details(error: BaseException) -> tuple[str, int, str]:
    """Return an error's own line, the status and the code of the server's last answer; 0 and none: there was none."""
    text = str(error)
    line = text.partition("\n\nDebug source")[0]
    status, code = _STATUS.search(line), _CODE.search(text)
    return line, int(status[1]) if status else 0, code[1] if code else ""


def bucket_gone(error: BaseException) -> bool:
    """Return whether it is the bucket that is not there."""
    return _details(error)[2] in _BUCKET


def same_name(error: BaseException) -> bool:
    """Return whether a folder stands where a file should, or a file above it."""
    return _details(error)[2] in _SAME_NAME


def out_of_range(error: BaseException) -> bool:
    """Return whether a part was asked for that begins behind the end."""
    line, status, _ = _details(error)
    return status == 416 or "Wanted range starting at" in line


def map_error(where: str, error: BaseException, op: Operation) -> CloudRuntimesError:
    """Return our error for one of obstore's; ``where`` is the cloud and the bucket."""
    line, status, code = _details(error)
    debug = str(error)
    if code in _BUCKET:
        return NotFoundError(f"{where}: there is no such bucket: make it, or correct url in the component's table")
    if match := _KEY.search(line):
        return InternalError(
            f"{where}: obstore cannot list the key {match[1]!r} of another program: list where it is not, or rename it"
        )
    if ELSEWHERE in debug or 300 <= status < 400:
        return UnavailableError(f"{where}: the store sends requests to another host: correct endpoint or region")
    if code == "RequestTimeTooSkewed":
        return UnauthenticatedError(
            f"{where}: the clock of this machine is too far from the server's, so signatures are refused: set it"
        )
    if code in _LOGIN or isinstance(error, exceptions.UnauthenticatedError):
        return UnauthenticatedError(
            f"{where}: the credentials are wrong or have ended ({code or status}): renew them, "
            "and look at the keys in the component's table and in the environment"
        )
    if status == 0 and isinstance(error, (ValueError, exceptions.UnknownConfigurationKeyError)):
        return InvalidArgumentError(f"{where}: obstore does not take a setting: look at the component's table")
    if code in _THROTTLED or status == 429:
        return UnavailableError(
            f"{where}: the store asks for fewer requests ({code or status}), and did so after the retries: call less often"
        )
    if _CHAIN.search(line) and not code and not isinstance(error, exceptions.PermissionDeniedError):
        return UnauthenticatedError(
            f"{where}: no credentials were found: give keys in the component's table or the environment, or a role to the machine"
        )
    if isinstance(error, exceptions.PermissionDeniedError) or status == 403:
        return PermissionDeniedError(f"{where}: the credentials may not do this ({code or status}): allow it to them")
    if code in ("EntityTooLarge", "MetadataTooLarge", "RequestBodyTooLarge"):
        return ResourceExhaustedError(f"{where}: more than the store takes in one request ({code})")
    if code in _SAME_NAME:
        return UnsupportedError(f"{where}: this store has no file and folder of the same name: give one another name")
    if code in ("KeyTooLongError", "InvalidUri", "InvalidResourceName"):
        return InvalidArgumentError(f"{where}: this store does not take such a name ({code}): give a shorter one")
    if isinstance(error, exceptions.PreconditionError) or status == 409:
        return ConflictError(f"{where}: another wrote it at the same time ({code or status}): try again")
    if isinstance(error, FileNotFoundError):
        return NotFoundError(f"{where}: it is gone")
    sent = op.method.writes and "Connect" not in debug
    if status >= 500:
        return UnavailableError(
            f"{where}: the store fails ({code or status}), also after the retries", maybe_applied=sent
        )
    if "TimedOut" in debug or "kind: Timeout" in debug:
        return op.timed_out(f"an answer of {where}", maybe_applied=sent)
    if status == 0:
        return UnavailableError(f"{where}: the store cannot be reached, or the connection broke", maybe_applied=sent)
    return InternalError(f"{where}: the store refuses the request ({code or status})")
