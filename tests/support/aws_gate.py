"""A gate before moto's server: it checks signatures, clocks and keys, and refuses as the documentation of AWS says. moto does none of it."""

from __future__ import annotations

import json
import re
import threading
import time
from calendar import timegm
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

from tests.support.listening import Answer, HttpServer

__all__ = ["AwsGate"]


class AwsGate(HttpServer):
    """A server in a thread.

    Attributes:
        url: of it.
        keys: access key → its secret key and session token.
        ahead: seconds of its clock.
        planned: what it answers next, a status and a document each; else it asks moto.
        silent: answer nothing.
        requests: what was asked, such as ``GetSecretValue``.
    """

    def __init__(self, moto: str) -> None:
        self.keys: dict[str, tuple[str, str | None]] = {"test": ("test", None)}
        self.planned: list[tuple[int, dict[str, Any]]] = []
        self.silent = False
        self.requests: list[str] = []
        self._lock = threading.Lock()
        self._moto = moto
        super().__init__()
        self.authority = f"127.0.0.1:{self.port}"

    def answered(self, method: str, path: str, headers: Any, body: bytes) -> Answer:
        while self.silent:
            time.sleep(0.01)
        with self._lock:
            self.requests.append(headers["X-Amz-Target"].rpartition(".")[2])
            return *(self.refusal(headers, body) or self.asked(headers, body)), ()

    def close(self) -> None:
        self.silent = False
        super().close()

    def refusal(self, headers: Any, body: bytes) -> tuple[int, bytes] | None:
        """Return why a request is refused, if it is."""
        key, region, service = re.findall(r"Credential=([^/]+)/\d+/([\w-]+)/(\w+)/", headers["Authorization"])[0]
        if key not in self.keys:
            return _error("UnrecognizedClientException", "The security token included in the request is invalid.")
        secret, token = self.keys[key]
        if headers.get("X-Amz-Security-Token") != token:
            return _error("ExpiredTokenException", "The security token included in the request is expired")
        signed = timegm(time.strptime(headers["X-Amz-Date"], "%Y%m%dT%H%M%SZ"))
        if abs(time.time() + self.ahead - signed) > 300:
            return _error("InvalidSignatureException", f"Signature expired: {headers['X-Amz-Date']} is now earlier")
        if headers["Authorization"] != self._signature(key, secret, region, service, headers, body):
            said = f"The Canonical String should have been\nx-amz-security-token:{token}"
            return _error("InvalidSignatureException", said)
        return None

    def _signature(self, key: str, secret: str, region: str, service: str, headers: Any, body: bytes) -> Any:
        """Return what botocore signs such a request by."""
        from botocore.auth import SigV4Auth
        from botocore.awsrequest import AWSRequest
        from botocore.credentials import Credentials

        names = re.findall(r"SignedHeaders=([\w;-]+)", headers["Authorization"])[0].split(";")
        sent = {name: headers[name] for name in names}
        request = AWSRequest("POST", self.url, headers=sent, data=body)
        request.context["timestamp"] = headers["X-Amz-Date"]
        signer = SigV4Auth(Credentials(key, secret), service, region)
        text = signer.string_to_sign(request, signer.canonical_request(request))
        signature = signer.signature(text, request)
        return f"AWS4-HMAC-SHA256 Credential={signer.scope(request)}, SignedHeaders={';'.join(names)}, Signature={signature}"

    def asked(self, headers: Any, body: bytes) -> tuple[int, bytes]:
        """Return what is planned, else what moto answers."""
        if self.planned:
            status, document = self.planned.pop(0)
            return status, json.dumps(document).encode()
        names = ("Authorization", "Content-Type", "X-Amz-Date", "X-Amz-Target")
        try:
            with urlopen(Request(self._moto, body, {name: headers[name] for name in names}), timeout=30) as reply:
                return reply.status, reply.read()
        except HTTPError as error:
            with error:
                return error.code, error.read()


def _error(code: str, said: str) -> tuple[int, bytes]:
    return 400, json.dumps({"__type": code, "message": said}).encode()
