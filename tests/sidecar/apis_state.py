"""Rows of the table of APIs: state."""

from __future__ import annotations

from rows import Api, Case, Http, Rpc

from cloud_runtimes import CloudRuntimesClient

STATE = "State"


def _saved(client: CloudRuntimesClient) -> None:
    client.state.save("store", "k", 1)


def _deleted(client: CloudRuntimesClient) -> None:
    client.state.delete("store", "k")


APIS = (
    Api(
        block=STATE,
        name="Get state",
        http="GET /v1.0/state/{store}/{key}",
        rpc="GetState",
        request="GetStateRequest",
        reply="GetStateResponse",
        cases=(
            Case(
                what="success",
                http=Http("GET", "/v1.0/state/store/k"),
                status=200,
                rpc=Rpc({"store_name": "store", "key": "k"}),
                before=_saved,
            ),
            Case(
                what="absent key",
                http=Http("GET", "/v1.0/state/store/k"),
                status=204,
                rpc=Rpc({"store_name": "store", "key": "k"}),
                before=_deleted,
            ),
            Case(
                what="no such store",
                http=Http("GET", "/v1.0/state/nope/k"),
                status=400,
                error="ERR_STATE_STORE_NOT_FOUND",
                rpc=Rpc({"store_name": "nope", "key": "k"}),
                code="INVALID_ARGUMENT",
                reason="DAPR_STATE_NOT_FOUND",
            ),
            Case(
                what="no state store at all",
                http=Http("GET", "/v1.0/state/nope/k"),
                status=500,
                error="ERR_STATE_STORE_NOT_CONFIGURED",
                rpc=Rpc({"store_name": "nope", "key": "k"}),
                code="FAILED_PRECONDITION",
                reason="DAPR_STATE_NOT_CONFIGURED",
                over="other",
            ),
        ),
    ),
)
