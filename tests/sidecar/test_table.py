"""Every case of the table of APIs, over both protocols; and its document."""

from __future__ import annotations

from collections.abc import Callable

import grpc
import pytest

from cloud_runtimes.dapr_server import Sidecar
from cloud_runtimes.protocols.dapr.messages import messages
from tests.sidecar.raw import Answer, call, refusal, send, stream
from tests.sidecar.rows import Api, Case
from tests.sidecar.table import APIS, DOCUMENT, render


@pytest.mark.parametrize("api", APIS, ids=lambda api: api.name)
def test_api(api: Api, sidecars: Callable[[str], Sidecar], subtests: pytest.Subtests) -> None:
    for case in api.cases:
        if case.http is not None:
            with subtests.test("HTTP", case=case.what):
                sidecar = _ready(sidecars, case)
                answer = send(sidecar.http_address, case.http.method, case.http.path, case.http.body, case.http.headers)
                assert (answer.status, answer.error) == case.answer, answer.body
                if answer.status >= 400 and answer.error is not None:
                    assert answer.headers["content-type"] == "application/json"
                    assert answer.json.get("message") or answer.json["failedEntries"]
        if case.rpc is not None:
            with subtests.test("gRPC", case=case.what):
                sidecar = _ready(sidecars, case)
                request = getattr(messages(), api.message("Request"))(**case.rpc)
                if api.streams:
                    answer = _first(sidecar.grpc_address, api, request)
                else:
                    answer = call(sidecar.grpc_address, api.rpc, request, api.message("Response"))
                assert (answer.code, answer.reason) == case.reply, answer.text


def _ready(sidecars: Callable[[str], Sidecar], case: Case) -> Sidecar:
    sidecar = sidecars(case.over)
    if case.before is not None:
        case.before(sidecar.context.client)
    return sidecar


def _first(address: str, api: Api, request: object) -> Answer:
    with grpc.insecure_channel(address) as channel:
        try:
            return Answer(code="OK", message=next(stream(channel, api.rpc, request, api.message("Response"))))
        except grpc.RpcError as error:
            return refusal(error)


def test_names_are_unique() -> None:
    names = [api.name for api in APIS]
    assert len(set(names)) == len(names)
    for api in APIS:
        whats = [case.what for case in api.cases]
        assert len(set(whats)) == len(whats) > 0, api.name


def test_each_case_is_sent_over_each_protocol_of_its_api() -> None:
    """No protocol is left out in silence: an API that has both is tried over both."""
    for api in APIS:
        assert bool(api.http) == any(case.http is not None for case in api.cases), api.name
        assert bool(api.rpc) == any(case.rpc is not None for case in api.cases), api.name


def test_document() -> None:
    """``python -m tests.sidecar.table`` (or ``make docs``) writes it."""
    assert DOCUMENT.read_text(encoding="utf-8") == render()
