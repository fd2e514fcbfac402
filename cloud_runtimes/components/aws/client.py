"""Requests to AWS in its JSON protocol, signed by Signature Version 4.

botocore finds credentials, region and endpoint. It does not make the requests: it would log secrets, knows no deadline of a call, and only blocks.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import re
import time
from collections.abc import Callable, Generator, Mapping
from email.utils import parsedate_to_datetime
from functools import partial
from typing import TYPE_CHECKING, Any, Final, TypeVar

from ..._core import extras, fork
from ..._core.logs import repeated
from ..._core.threads import Background, Mutex
from ..._http.client import HttpClient
from ...codec import json
from ...errors import (
    CloudRuntimesError,
    InternalError,
    InvalidArgumentError,
    NotFoundError,
    PermissionDeniedError,
    UnauthenticatedError,
    UnavailableError,
)
from ...rpc.peers import endpoint
from ...spi.operation import Operation
from ...spi.rpc import RpcCall, RpcReply
from .._net.http import Flow, FlowClient, document, tls

if TYPE_CHECKING:
    from ...spi.executor import Executor
    from . import AwsSettings

T = TypeVar("T")

_CREDENTIALS: Final = object()
"""Asked for before requests, which are signed with them."""
_TARGETS: Final = {"secretsmanager": "secretsmanager", "ssm": "AmazonSSM"}
_TYPE: Final = "application/x-amz-json-1.1"
_SKEW: Final = 60.0
"""Seconds by which clocks may differ; AWS allows 5 minutes."""
_WAYS: Final = (
    "set AWS_PROFILE, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, run aws sso login, or give the pod, task or machine a role"
)
_CLOCK: Final = frozenset(
    ["InvalidSignatureException", "RequestExpired", "RequestTimeTooSkewed", "SignatureDoesNotMatch"]
)
_EXPIRED: Final = frozenset(["ExpiredToken", "ExpiredTokenException", "TokenRefreshRequired"])
_WRONG: Final = _CLOCK | {
    "AuthFailure",
    "IncompleteSignature",
    "IncompleteSignatureException",
    "InvalidAccessKeyId",
    "InvalidClientTokenId",
    "InvalidToken",
    "MissingAuthenticationToken",
    "MissingAuthenticationTokenException",
    "UnrecognizedClientException",
}
_DENIED: Final = frozenset(["AccessDenied", "AccessDeniedException", "NotAuthorized", "UnauthorizedOperation"])
_KEY: Final = frozenset(["DecryptionFailure", "InvalidKeyId", "KMSAccessDeniedException"])
_ABSENT: Final = frozenset(["ParameterNotFound", "ParameterVersionNotFound", "ResourceNotFoundException"])
_BUSY: Final = frozenset(
    ["LimitExceededException", "PriorRequestNotComplete", "RequestLimitExceeded", "TooManyUpdates"]
)
_loaders: Final[dict[str, Any]] = {}
"""What reads botocore's descriptions of services, which takes 60 ms the first time."""


class _Session:
    """Session of botocore: its client of the service, and credentials, which it renews."""

    def __init__(self, client: Any, credentials: Any) -> None:
        self.client = client
        self.credentials = credentials
        self.accepted = False  # by AWS
        self.refused = False

    def is_good(self) -> bool:
        """Return whether the credentials can be used without asking anyone."""
        renewal_is_due = getattr(self.credentials, "refresh_needed", None)  # those that end have it
        return not self.refused and (renewal_is_due is None or not renewal_is_due())


class AwsClient(FlowClient):
    """The connections to one service in one region, and the credentials."""

    _session: _Session

    def __init__(self, settings: AwsSettings, service: str, app_id: str, executor: Executor) -> None:
        super().__init__(app_id)
        self.where = "AWS"
        self._settings = settings
        self._service = service
        self._executor = executor
        self._lock = Mutex()
        self._ahead = 0.0  # seconds of AWS's clock
        if settings.url is not None:
            endpoint(settings.url, "aws: url")
        fork.register(self)

    def forked(self) -> None:
        """In a forked child: another thread of the parent may have held a lock of botocore's."""
        vars(self).pop("_session", None)

    def close(self) -> None:
        if "_http" in vars(self):
            super().close()

    def native(self, op: Operation) -> Any:
        """Return botocore's client."""
        self._find(op)
        return self._session.client

    def steps(self, op: Operation, flow: Flow[T]) -> Generator[Any, Any, T]:
        """Look for credentials first, unless there are some that are good."""
        if not self._is_ready():
            yield _CREDENTIALS
        return (yield from flow)

    def exchange(self, op: Operation, step: Any) -> Any:
        return self._find(op) if step is _CREDENTIALS else super().exchange(op, step)

    async def exchange_async(self, op: Operation, step: Any) -> Any:
        if step is not _CREDENTIALS:
            return await super().exchange_async(op, step)
        failed: list[CloudRuntimesError] = []
        await self._executor.in_thread(partial(self._look, failed), op)
        if failed:
            raise failed[0]

    # -- requests ---------------------------------------------------------

    def ask(self, action: str, body: Mapping[str, Any], read: Callable[[Any], T | None]) -> Flow[T]:
        """Make a request and return what ``read``, which raises nothing, makes of the answer; ``None``: it is none."""
        data = json.encode(body)
        while True:
            session = self._session
            reply = yield self._signed(session, action, data)
            if reply.status == 200:
                session.accepted = True
                result = read(document(reply.data))
                del reply
                if result is None:
                    raise InternalError(f"{self.where}: {action}: this is no answer of AWS")
                return result
            status, code, said = reply.status, *_parse_error(reply)
            again = code in _CLOCK and self._clock_differs(reply)
            del reply  # it may quote a token
            if not again:
                if code in _EXPIRED | _WRONG:
                    session.refused = True
                elif code:
                    session.accepted = True
                raise self.refusal(action, code, said, status, retryable=session.accepted)

    def _signed(self, session: _Session, action: str, data: bytes) -> RpcCall:
        """Return a request (AWS, "Signature Version 4 signing process")."""
        keys = session.credentials.get_frozen_credentials()
        stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(time.time() + self._ahead))
        headers = {
            "host": self._endpoint.authority,
            "content-type": _TYPE,
            "x-amz-date": stamp,
            "x-amz-target": f"{_TARGETS[self._service]}.{action}",
        }
        if keys.token:
            headers["x-amz-security-token"] = keys.token
        names = ";".join(sorted(headers))
        lines = [f"{name}:{headers[name]}\n" for name in sorted(headers)]
        text = f"POST\n{self._endpoint.prefix}/\n\n{''.join(lines)}\n{names}\n{_hash(data)}"
        parts = [stamp[:8], session.client.meta.region_name, self._service, "aws4_request"]
        text = f"AWS4-HMAC-SHA256\n{stamp}\n{'/'.join(parts)}\n{_hash(text.encode())}"
        key = f"AWS4{keys.secret_key}".encode()
        for part in [*parts, text]:
            key = hmac.digest(key, part.encode(), "sha256")
        login = f"AWS4-HMAC-SHA256 Credential={keys.access_key}/{'/'.join(parts)}, SignedHeaders={names}"
        headers["authorization"] = f"{login}, Signature={key.hex()}"
        del headers["host"], headers["content-type"]  # which are sent in any case
        return RpcCall(action, "", "POST", data, _TYPE, headers, "")

    def _clock_differs(self, reply: RpcReply) -> bool:
        """Take AWS's clock, if it is not the one that we signed by."""
        try:
            ahead = parsedate_to_datetime(reply.headers.get("date", "")).timestamp() - time.time()
        except ValueError:
            return False
        if abs(ahead - self._ahead) < _SKEW:
            return False
        self._ahead = ahead
        repeated("clock of AWS", "the clock of this machine differs from that of AWS by %d s: set it", round(ahead))
        return True

    def refusal(
        self, action: str, code: str, said: str = "", status: int = 400, *, retryable: bool = False
    ) -> CloudRuntimesError:
        """Return what an error of AWS is here; ``retryable``: of credentials, since others may be found now."""
        where = f"{self.where}: {action}"
        if code in _EXPIRED:
            return UnauthenticatedError(f"{where}: the credentials have expired ({code}): {_WAYS}", retryable=retryable)
        if code in _WRONG:
            return UnauthenticatedError(f"{where}: the credentials are refused ({code}): {_WAYS}", retryable=retryable)
        if code in _DENIED:
            return PermissionDeniedError(f"{where} is not allowed: {said or 'look at the policies of the role'}")
        if code in _KEY:
            return PermissionDeniedError(
                f"{where}: its KMS key cannot be used ({code}): allow kms:Decrypt for the role"
            )
        if code in _ABSENT:
            return NotFoundError(f"{where}: there is no such thing ({code})")
        if "Throttl" in code or code in _BUSY or status == 429:
            return UnavailableError(f"{where}: more requests than AWS allows ({code or status})")
        if status >= 500:
            return UnavailableError(f"{where}: AWS has a failure of its own ({code or status})")
        if status == 400 and code:
            return InvalidArgumentError(f"{where}: the request is refused ({code})")
        return InternalError(f"{where}: this is no answer of AWS (status {status})")

    # -- credentials ------------------------------------------------------

    def _is_ready(self) -> bool:
        return "_session" in vars(self) and self._session.is_good()

    def _find(self, op: Operation) -> None:
        """Have credentials that are good."""
        if self._is_ready():
            return
        failed: list[CloudRuntimesError] = []
        thread = Background(partial(self._look, failed), "cloud-runtimes-aws")  # which may ask other machines
        thread.start()
        if not thread.join(op.remaining()):
            raise op.timed_out("credentials of AWS")
        if failed:
            raise failed[0]

    def _look(self, failed: list[CloudRuntimesError]) -> None:
        """Have botocore look for credentials, or renew them."""
        try:
            with self._lock:
                if "_session" not in vars(self) or self._session.refused:
                    self._session = self._looked_for()
                self._session.credentials.get_frozen_credentials()
        except CloudRuntimesError as error:
            failed.append(error)
        except Exception as error:  # whose frames hold credentials
            failed.append(self._map_error(error))

    def _looked_for(self) -> _Session:
        settings = self._settings
        with extras.importing("component 'aws'", "aws"):
            import botocore.session
        session = botocore.session.Session(profile=settings.profile)
        loader = _loaders.setdefault("data_loader", session.get_component("data_loader"))
        session.register_component("data_loader", loader)
        if settings.access_key is not None:
            session.set_credentials(settings.access_key, settings.secret_key, settings.session_token)
        region = settings.region or session.get_config_variable("region") or os.environ.get("AWS_REGION")
        client = session.create_client(self._service, region_name=region, endpoint_url=settings.url)
        credentials = session.get_credentials()
        if credentials is None:
            raise UnauthenticatedError(f"AWS: there are no credentials: {_WAYS}")
        self._endpoint = endpoint(client.meta.endpoint_url, "aws: url")
        self.where = f"AWS {self._endpoint.authority}"
        if "_http" not in vars(self):
            self._http = HttpClient(tls(session.get_config_variable("ca_bundle"), "AWS_CA_BUNDLE"))
        return _Session(client, credentials)

    def _map_error(self, error: Exception) -> CloudRuntimesError:
        """Return what an error of botocore is here."""
        name = type(error).__name__
        if name == "NoRegionError":
            return InvalidArgumentError("AWS: there is no region: set region, AWS_REGION, or one in ~/.aws/config")
        if name == "ProfileNotFound":
            return InvalidArgumentError(f"AWS: {error}: look at profile, AWS_PROFILE and ~/.aws/config")
        if name == "ClientError":
            response = getattr(error, "response", {})
            code = str(response.get("Error", {}).get("Code", ""))
            action = str(getattr(error, "operation_name", "credentials"))
            return self.refusal(action, code, "", int(response.get("ResponseMetadata", {}).get("HTTPStatusCode", 400)))
        if any(part in name for part in ("Connect", "Timeout", "HTTPClient")):
            return UnavailableError(f"AWS: credentials cannot be fetched ({name})")
        return UnauthenticatedError(f"AWS: credentials cannot be had ({name}): {_WAYS}")


def _hash(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _parse_error(reply: RpcReply) -> tuple[str, str]:
    """Return what `shown` makes of a refusal."""
    body = document(reply.data)
    body = body if isinstance(body, dict) else {}
    code = str(body.get("__type") or reply.headers.get("x-amzn-errortype", "")).rpartition("#")[2].partition(":")[0]
    return shown(code, str(body.get("message") or body.get("Message") or ""))


def shown(code: str, said: str) -> tuple[str, str]:
    """Return the code of an error, and its message where that may be shown: others quote what was sent."""
    if re.search("marked (for deletion|deleted)", said):
        return "ResourceNotFoundException", ""
    return code, said[:500] if code in _DENIED and said.isprintable() else ""
