"""How state says no (dapr/dapr ``pkg/api/errors/state.go``, ``pkg/messages``)."""

from __future__ import annotations

from ...errors import CloudRuntimesError, ConflictError
from ...protocols.dapr.failures import DaprError
from ..context import Lack

_STORES = "https://docs.dapr.io/reference/components-reference/supported-state-stores/"


def lacking(lack: Lack, store: str, app_id: str) -> DaprError:
    """Return the refusal of a store that is not there; the app id is told over HTTP alone."""
    metadata = {"appID": app_id} if app_id else None
    if lack is Lack.NOT_FOUND:
        return DaprError(
            400,
            "INVALID_ARGUMENT",
            "ERR_STATE_STORE_NOT_FOUND",
            f"state store {store} is not found",
            reason="DAPR_STATE_NOT_FOUND",
            metadata=metadata,
        )
    return DaprError(
        500,
        "FAILED_PRECONDITION",
        "ERR_STATE_STORE_NOT_CONFIGURED",
        f"state store {store} is not configured",
        reason="DAPR_STATE_NOT_CONFIGURED",
        metadata=metadata,
    )


def illegal_key(store: str, key: str, why: str) -> DaprError:
    """Return the refusal of a key."""
    return DaprError(
        400,
        "INVALID_ARGUMENT",
        "ERR_MALFORMED_REQUEST",
        why,
        reason="DAPR_STATE_ILLEGAL_KEY",
        resource=("state", store),
        violations=((key, why),),
    )


def empty_key() -> DaprError:
    """Return the refusal of a save without a key over gRPC; over HTTP the body is malformed."""
    return DaprError.basic(400, "INVALID_ARGUMENT", "ERR_STATE_SAVE", "state key cannot be empty")


def failed(code: str, text: str, error: CloudRuntimesError) -> DaprError:
    """Return a failure of an operation; ``text``, if any, is put before what went wrong."""
    before = f"{text}: " if text else ""
    if isinstance(error, ConflictError):
        why = f"possible etag mismatch. error from state store: {error.message}"
        return DaprError.basic(409, "ABORTED", code, before + why)
    return DaprError.basic(500, "INTERNAL", code, before + error.message)


def no_etag(code: str, text: str, etag: str) -> DaprError:
    """Return the refusal of an etag that the store can never have given."""
    why = f"invalid etag value: {etag!r:.80} is none of this store"
    return DaprError.basic(400, "INVALID_ARGUMENT", code, f"{text}: {why}")


def no_transactions(store: str) -> DaprError:
    """Return the refusal of a transaction where the component has none."""
    return DaprError(
        500,
        "UNIMPLEMENTED",
        "ERR_STATE_STORE_NOT_SUPPORTED",
        f"state store {store} doesn't support transactions",
        reason="DAPR_STATE_TRANSACTIONS_NOT_SUPPORTED",
        resource=("state", store),
        links=(("Check the list of state stores and the features they support", _STORES),),
    )


def not_an_operation(operation: str) -> DaprError:
    """Return the refusal of an operation of a transaction that is neither ``upsert`` nor ``delete``."""
    return DaprError.basic(
        400, "UNIMPLEMENTED", "ERR_NOT_SUPPORTED_STATE_OPERATION", f"operation type {operation} not supported"
    )


def no_query(store: str) -> DaprError:
    """Return the refusal of a query, as of a store that does not support querying."""
    return DaprError(
        500,
        "INTERNAL",
        "ERR_STATE_STORE_NOT_SUPPORTED",
        "state store does not support querying",
        reason="DAPR_STATE_QUERYING_NOT_SUPPORTED",
        resource=("state", store),
    )
