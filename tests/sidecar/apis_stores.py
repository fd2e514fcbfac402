"""Rows of the table of APIs: secrets, configuration, locks and bindings."""

from __future__ import annotations

import base64
from typing import Any

from cloud_runtimes import CloudRuntimesClient
from tests.sidecar.rows import Api, Case, Http, Rpc

SECRETS = "Secrets"
CONFIGURATION = "Configuration"
LOCK = "Lock"
BINDINGS = "Bindings"


def _free(client: CloudRuntimesClient) -> None:
    for owner in ("me", "other"):
        client.lock.unlock("store", "r", owner)


def _taken(client: CloudRuntimesClient) -> None:
    _free(client)
    client.lock.try_lock("store", "r", "other", expiry=600)


def _mine(client: CloudRuntimesClient) -> None:
    _free(client)
    client.lock.try_lock("store", "r", "me", expiry=600)


def _configured(client: CloudRuntimesClient) -> None:
    client.configuration.save_configuration("store", {"k": "v"})


def _file(client: CloudRuntimesClient) -> None:
    client.file.put_file("store", "folder/f", b"data")


def _no_file(client: CloudRuntimesClient) -> None:
    client.file.delete_file("store", "folder/f")


def _table(client: CloudRuntimesClient) -> None:
    client.database.execute("store", "CREATE TABLE IF NOT EXISTS t (id INTEGER PRIMARY KEY, name TEXT)")
    client.database.execute("store", "DELETE FROM t")


def _secret_stores(path: str, **fields: Any) -> tuple[Case, ...]:
    return (
        Case(
            what="no such store",
            http=Http("GET", path),
            status=401,
            error="ERR_SECRET_STORE_NOT_FOUND",
            rpc=Rpc({"store_name": "nope", **fields}),
            code="INVALID_ARGUMENT",
        ),
        Case(
            what="no secret store at all",
            http=Http("GET", path),
            status=500,
            error="ERR_SECRET_STORES_NOT_CONFIGURED",
            rpc=Rpc({"store_name": "nope", **fields}),
            code="FAILED_PRECONDITION",
            over="other",
        ),
    )


def _configuration_stores(path: str, *, rpc: bool = True) -> tuple[Case, ...]:
    return (
        Case(
            what="no such store",
            http=Http("GET", path),
            status=400,
            error="ERR_CONFIGURATION_STORE_NOT_FOUND",
            rpc=Rpc({"store_name": "nope"}) if rpc else None,
            code="INVALID_ARGUMENT",
            reason="ERR_CONFIGURATION_STORE_NOT_FOUND",
        ),
        Case(
            what="no configuration store at all",
            http=Http("GET", path),
            status=500,
            error="ERR_CONFIGURATION_STORE_NOT_CONFIGURED",
            rpc=Rpc({"store_name": "nope"}) if rpc else None,
            code="FAILED_PRECONDITION",
            reason="ERR_CONFIGURATION_STORE_NOT_CONFIGURED",
            over="other",
        ),
    )


def _configuration(version: str, suffix: str, note: str) -> tuple[Api, ...]:
    base = f"/{version}/configuration"
    return (
        Api(
            block=CONFIGURATION,
            name=f"Get configuration{note}",
            http=f"GET {base}/{{store}}",
            rpc=f"GetConfiguration{suffix}",
            request="GetConfigurationRequest",
            reply="GetConfigurationResponse",
            note="Without keys: all. Absent keys are left out.",
            cases=(
                Case(
                    what="success",
                    http=Http("GET", f"{base}/store?key=k"),
                    status=200,
                    rpc=Rpc({"store_name": "store", "keys": ["k"]}),
                    before=_configured,
                ),
                Case(
                    what="absent keys",
                    http=Http("GET", f"{base}/store?key=absent"),
                    status=204,
                    rpc=Rpc({"store_name": "store", "keys": ["absent"]}),
                ),
                Case(
                    what="key with `||`",
                    http=Http("GET", f"{base}/store?key=a%7C%7Cb"),
                    status=500,
                    error="ERR_CONFIGURATION_GET",
                    rpc=Rpc({"store_name": "store", "keys": ["a||b"]}),
                    code="INTERNAL",
                    reason="ERR_CONFIGURATION_GET",
                ),
                *_configuration_stores(f"{base}/nope"),
            ),
        ),
        Api(
            block=CONFIGURATION,
            name=f"Subscribe to configuration{note}",
            http=f"GET {base}/{{store}}/subscribe",
            rpc=f"SubscribeConfiguration{suffix}",
            request="SubscribeConfigurationRequest",
            reply="SubscribeConfigurationResponse",
            streams=True,
            note="Over HTTP the application gets `POST /configuration/{store}/{key}` for each change; over gRPC the stream's first message has the id. What there is already does not come, and a deleted key comes without a value.",
            cases=(
                Case(
                    what="success",
                    http=Http("GET", f"{base}/store/subscribe?key=k"),
                    status=200,
                    rpc=Rpc({"store_name": "store", "keys": ["k"]}),
                    over="application",
                ),
                Case(
                    what="no application",
                    http=Http("GET", f"{base}/store/subscribe"),
                    status=500,
                    error="ERR_APP_CHANNEL_NIL",
                ),
                Case(
                    what="key with `||`",
                    http=Http("GET", f"{base}/store/subscribe?key=a%7C%7Cb"),
                    status=500,
                    error="ERR_CONFIGURATION_SUBSCRIBE",
                    rpc=Rpc({"store_name": "store", "keys": ["a||b"]}),
                    code="INVALID_ARGUMENT",
                    reason="ERR_CONFIGURATION_SUBSCRIBE",
                    over="application",
                ),
                *_configuration_stores(f"{base}/nope/subscribe"),
            ),
        ),
        Api(
            block=CONFIGURATION,
            name=f"Unsubscribe from configuration{note}",
            http=f"GET {base}/{{store}}/{{id}}/unsubscribe",
            rpc=f"UnsubscribeConfiguration{suffix}",
            request="UnsubscribeConfigurationRequest",
            reply="UnsubscribeConfigurationResponse",
            note="What cannot be ended is told in the reply: `message`, over gRPC with `ok` false.",
            cases=(
                Case(
                    what="no such subscription",
                    http=Http("GET", f"{base}/store/nope/unsubscribe"),
                    status=500,
                    rpc=Rpc({"store_name": "store", "id": "nope"}),
                ),
                *_configuration_stores(f"{base}/nope/x/unsubscribe", rpc=False),
            ),
        ),
    )


def _lock_stores(path: str, body: dict[str, Any], **fields: Any) -> tuple[Case, ...]:
    return (
        Case(
            what="no resource",
            http=Http("POST", f"{path}/store", {**body, "resourceId": ""}),
            status=400,
            error="ERR_MALFORMED_REQUEST",
            rpc=Rpc({"store_name": "store", **fields, "resource_id": ""}),
            code="INVALID_ARGUMENT",
        ),
        Case(
            what="no owner",
            http=Http("POST", f"{path}/store", {**body, "lockOwner": ""}),
            status=400,
            error="ERR_MALFORMED_REQUEST",
            rpc=Rpc({"store_name": "store", **fields, "lock_owner": ""}),
            code="INVALID_ARGUMENT",
        ),
        Case(
            what="not JSON",
            http=Http("POST", f"{path}/store", b"{"),
            status=400,
            error="ERR_MALFORMED_REQUEST",
        ),
        Case(
            what="resource with `||`",
            http=Http("POST", f"{path}/store", {**body, "resourceId": "a||b"}),
            status=500,
            error="ERR_TRY_LOCK" if "expiryInSeconds" in body else "ERR_UNLOCK",
            rpc=Rpc({"store_name": "store", **fields, "resource_id": "a||b"}),
            code="INTERNAL",
        ),
        Case(
            what="no such store",
            http=Http("POST", f"{path}/nope", body),
            status=400,
            error="ERR_LOCK_STORE_NOT_FOUND",
            rpc=Rpc({"store_name": "nope", **fields}),
            code="INVALID_ARGUMENT",
        ),
        Case(
            what="no lock store at all",
            http=Http("POST", f"{path}/nope", body),
            status=500,
            error="ERR_LOCK_STORE_NOT_CONFIGURED",
            rpc=Rpc({"store_name": "nope", **fields}),
            code="FAILED_PRECONDITION",
            over="other",
        ),
    )


TRY = {"resourceId": "r", "lockOwner": "me", "expiryInSeconds": 60}
TRY_RPC = {"resource_id": "r", "lock_owner": "me", "expiry_in_seconds": 60}
UNLOCK = {"resourceId": "r", "lockOwner": "me"}
UNLOCK_RPC = {"resource_id": "r", "lock_owner": "me"}


def _binding(
    what: str, name: str, operation: str, data: Any = None, before: Any = None, status: int = 200, **metadata: str
) -> Case:
    """Return a case of a binding; ``status`` 500: it is refused."""
    body = {"operation": operation, "metadata": metadata, **({} if data is None else {"data": data})}
    raw = b"" if data is None else str(data).encode()
    return Case(
        what=what,
        http=Http("POST", f"/v1.0/bindings/{name}", body),
        status=status,
        error="ERR_INVOKE_OUTPUT_BINDING" if status == 500 else None,
        rpc=Rpc({"name": name, "operation": operation, "data": raw, "metadata": metadata}),
        code="INTERNAL" if status == 500 else "OK",
        reason="ERR_INVOKE_OUTPUT_BINDING" if status == 500 else None,
        before=before,
    )


APIS = (
    Api(
        block=SECRETS,
        name="Get secret",
        http="GET /v1.0/secrets/{store}/{key}",
        rpc="GetSecret",
        request="GetSecretRequest",
        reply="GetSecretResponse",
        note="Absent has no code of its own. There are no scopes: what a store has, every caller may read.",
        cases=(
            Case(
                what="success",
                http=Http("GET", "/v1.0/secrets/store/key"),
                status=200,
                rpc=Rpc({"store_name": "store", "key": "key"}),
            ),
            Case(
                what="absent secret",
                http=Http("GET", "/v1.0/secrets/store/absent"),
                status=500,
                error="ERR_SECRET_GET",
                rpc=Rpc({"store_name": "store", "key": "absent"}),
                code="INTERNAL",
            ),
            *_secret_stores("/v1.0/secrets/nope/key", key="key"),
        ),
    ),
    Api(
        block=SECRETS,
        name="Get bulk secret",
        http="GET /v1.0/secrets/{store}/bulk",
        rpc="GetBulkSecret",
        request="GetBulkSecretRequest",
        reply="GetBulkSecretResponse",
        cases=(
            Case(
                what="success",
                http=Http("GET", "/v1.0/secrets/store/bulk"),
                status=200,
                rpc=Rpc({"store_name": "store"}),
            ),
            *_secret_stores("/v1.0/secrets/nope/bulk"),
        ),
    ),
    *_configuration("v1.0", "", ""),
    *_configuration("v1.0-alpha1", "Alpha1", " (alpha)"),
    Api(
        block=LOCK,
        name="Try lock",
        http="POST /v1.0-alpha1/lock/{store}",
        rpc="TryLockAlpha1",
        request="TryLockRequest",
        reply="TryLockResponse",
        note="Not re-entrant: who has the lock gets `false` too.",
        cases=(
            Case(
                what="free",
                http=Http("POST", "/v1.0-alpha1/lock/store", TRY),
                status=200,
                rpc=Rpc({"store_name": "store", **TRY_RPC}),
                before=_free,
            ),
            Case(
                what="taken",
                http=Http("POST", "/v1.0-alpha1/lock/store", TRY),
                status=200,
                rpc=Rpc({"store_name": "store", **TRY_RPC}),
                before=_taken,
            ),
            Case(
                what="no expiry",
                http=Http("POST", "/v1.0-alpha1/lock/store", {**TRY, "expiryInSeconds": 0}),
                status=400,
                error="ERR_MALFORMED_REQUEST",
                rpc=Rpc({"store_name": "store", **TRY_RPC, "expiry_in_seconds": 0}),
                code="INVALID_ARGUMENT",
            ),
            *_lock_stores("/v1.0-alpha1/lock", TRY, **TRY_RPC),
        ),
    ),
    Api(
        block=LOCK,
        name="Unlock",
        http="POST /v1.0-alpha1/unlock/{store}",
        rpc="UnlockAlpha1",
        request="UnlockRequest",
        reply="UnlockResponse",
        note="`status` in the reply: 0 unlocked, 1 nobody holds it, 2 somebody else does.",
        cases=(
            Case(
                what="the owner's",
                http=Http("POST", "/v1.0-alpha1/unlock/store", UNLOCK),
                status=200,
                rpc=Rpc({"store_name": "store", **UNLOCK_RPC}),
                before=_mine,
            ),
            Case(
                what="another's",
                http=Http("POST", "/v1.0-alpha1/unlock/store", UNLOCK),
                status=200,
                rpc=Rpc({"store_name": "store", **UNLOCK_RPC}),
                before=_taken,
            ),
            *_lock_stores("/v1.0-alpha1/unlock", UNLOCK, **UNLOCK_RPC),
        ),
    ),
    Api(
        block=BINDINGS,
        name="Invoke binding",
        http="POST, PUT /v1.0/bindings/{name}",
        rpc="InvokeBinding",
        request="InvokeBindingRequest",
        reply="InvokeBindingResponse",
        note="To files as `bindings.localstorage` (`list` gives names below the store's root), to SQL as `bindings.postgresql`. What is no name of a declared binding, and every failure of one, has one code.",
        cases=(
            _binding("file: create", "files", "create", base64.b64encode(b"x").decode(), fileName="new"),
            _binding("file: get", "files", "get", before=_file, fileName="folder/f"),
            _binding("file: list", "files", "list", before=_file, fileName="folder"),
            _binding("file: delete", "files", "delete", before=_file, status=204, fileName="folder/f"),
            _binding("file: absent", "files", "get", before=_no_file, status=500, fileName="folder/f"),
            _binding(
                "file: delete what is absent", "files", "delete", before=_no_file, status=500, fileName="folder/f"
            ),
            _binding("file: no such folder", "files", "list", status=500, fileName="nowhere"),
            _binding("file: get without a name", "files", "get", status=500),
            _binding(
                "SQL: exec",
                "sql",
                "exec",
                before=_table,
                sql="INSERT INTO t (id, name) VALUES ($1, $2)",
                params='[1, "a"]',
            ),
            _binding("SQL: query", "sql", "query", before=_table, sql="SELECT id, name FROM t"),
            _binding("SQL: no statement", "sql", "query", status=500),
            _binding("SQL: refused by the database", "sql", "exec", status=500, sql="INSERT INTO nowhere VALUES (1)"),
            _binding("SQL: params that are no array", "sql", "query", status=500, sql="SELECT 1", params="1"),
            _binding("no operation", "files", "", status=500),
            _binding("unknown operation", "files", "move", status=500),
            _binding("no such binding", "nope", "get", status=500),
            Case(
                what="not JSON",
                http=Http("POST", "/v1.0/bindings/files", b"{"),
                status=400,
                error="ERR_MALFORMED_REQUEST",
            ),
        ),
    ),
)
