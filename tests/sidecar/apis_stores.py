"""Rows of the table of APIs: secrets, configuration, locks and bindings."""

from __future__ import annotations

import base64
from typing import Any

from cloud_runtimes import CloudRuntimesClient
from tests.sidecar.rows import Api, Case, Http

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
            "no such store",
            "401 ERR_SECRET_STORE_NOT_FOUND, INVALID_ARGUMENT",
            Http("GET", path),
            {"store_name": "nope", **fields},
        ),
        Case(
            "no secret store at all",
            "500 ERR_SECRET_STORES_NOT_CONFIGURED, FAILED_PRECONDITION",
            Http("GET", path),
            {"store_name": "nope", **fields},
            over="other",
        ),
    )


def _configuration_stores(path: str, *, rpc: bool = True) -> tuple[Case, ...]:
    return (
        Case(
            "no such store",
            "400 ERR_CONFIGURATION_STORE_NOT_FOUND, INVALID_ARGUMENT ERR_CONFIGURATION_STORE_NOT_FOUND",
            Http("GET", path),
            {"store_name": "nope"} if rpc else None,
        ),
        Case(
            "no configuration store at all",
            "500 ERR_CONFIGURATION_STORE_NOT_CONFIGURED, FAILED_PRECONDITION ERR_CONFIGURATION_STORE_NOT_CONFIGURED",
            Http("GET", path),
            {"store_name": "nope"} if rpc else None,
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
            note="Without keys: all. Absent keys are left out.",
            cases=(
                Case(
                    "success",
                    "200, OK",
                    Http("GET", f"{base}/store?key=k"),
                    {"store_name": "store", "keys": ["k"]},
                    before=_configured,
                ),
                Case(
                    "absent keys",
                    "204, OK",
                    Http("GET", f"{base}/store?key=absent"),
                    {"store_name": "store", "keys": ["absent"]},
                ),
                Case(
                    "key with `||`",
                    "500 ERR_CONFIGURATION_GET, INTERNAL ERR_CONFIGURATION_GET",
                    Http("GET", f"{base}/store?key=a%7C%7Cb"),
                    {"store_name": "store", "keys": ["a||b"]},
                ),
                *_configuration_stores(f"{base}/nope"),
            ),
        ),
        Api(
            block=CONFIGURATION,
            name=f"Subscribe to configuration{note}",
            http=f"GET {base}/{{store}}/subscribe",
            rpc=f"SubscribeConfiguration{suffix}",
            streams=True,
            note="Over HTTP the application gets `POST /configuration/{store}/{key}` for each change; over gRPC the stream's first message has the id. What there is already does not come, and a deleted key comes without a value.",
            cases=(
                Case(
                    "success",
                    "200, OK",
                    Http("GET", f"{base}/store/subscribe?key=k"),
                    {"store_name": "store", "keys": ["k"]},
                    over="application",
                ),
                Case("no application", "500 ERR_APP_CHANNEL_NIL, -", Http("GET", f"{base}/store/subscribe")),
                Case(
                    "key with `||`",
                    "500 ERR_CONFIGURATION_SUBSCRIBE, INVALID_ARGUMENT ERR_CONFIGURATION_SUBSCRIBE",
                    Http("GET", f"{base}/store/subscribe?key=a%7C%7Cb"),
                    {"store_name": "store", "keys": ["a||b"]},
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
            note="What cannot be ended is told in the reply: `message`, over gRPC with `ok` false.",
            cases=(
                Case(
                    "no such subscription",
                    "500, OK",
                    Http("GET", f"{base}/store/nope/unsubscribe"),
                    {"store_name": "store", "id": "nope"},
                ),
                *_configuration_stores(f"{base}/nope/x/unsubscribe", rpc=False),
            ),
        ),
    )


def _lock_stores(failure: str, path: str, body: dict[str, Any], **fields: Any) -> tuple[Case, ...]:
    return (
        Case(
            "no resource",
            "400 ERR_MALFORMED_REQUEST, INVALID_ARGUMENT",
            Http("POST", f"{path}/store", {**body, "resourceId": ""}),
            {"store_name": "store", **fields, "resource_id": ""},
        ),
        Case(
            "no owner",
            "400 ERR_MALFORMED_REQUEST, INVALID_ARGUMENT",
            Http("POST", f"{path}/store", {**body, "lockOwner": ""}),
            {"store_name": "store", **fields, "lock_owner": ""},
        ),
        Case("not JSON", "400 ERR_MALFORMED_REQUEST, -", Http("POST", f"{path}/store", b"{")),
        Case(
            "resource with `||`",
            f"500 {failure}, INTERNAL",
            Http("POST", f"{path}/store", {**body, "resourceId": "a||b"}),
            {"store_name": "store", **fields, "resource_id": "a||b"},
        ),
        Case(
            "no such store",
            "400 ERR_LOCK_STORE_NOT_FOUND, INVALID_ARGUMENT",
            Http("POST", f"{path}/nope", body),
            {"store_name": "nope", **fields},
        ),
        Case(
            "no lock store at all",
            "500 ERR_LOCK_STORE_NOT_CONFIGURED, FAILED_PRECONDITION",
            Http("POST", f"{path}/nope", body),
            {"store_name": "nope", **fields},
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
    refused = "500 ERR_INVOKE_OUTPUT_BINDING, INTERNAL ERR_INVOKE_OUTPUT_BINDING"
    return Case(
        what,
        refused if status == 500 else f"{status}, OK",
        Http("POST", f"/v1.0/bindings/{name}", body),
        {"name": name, "operation": operation, "data": raw, "metadata": metadata},
        before=before,
    )


APIS = (
    Api(
        block=SECRETS,
        name="Get secret",
        http="GET /v1.0/secrets/{store}/{key}",
        rpc="GetSecret",
        note="Absent has no code of its own. There are no scopes: what a store has, every caller may read.",
        cases=(
            Case("success", "200, OK", Http("GET", "/v1.0/secrets/store/key"), {"store_name": "store", "key": "key"}),
            Case(
                "absent secret",
                "500 ERR_SECRET_GET, INTERNAL",
                Http("GET", "/v1.0/secrets/store/absent"),
                {"store_name": "store", "key": "absent"},
            ),
            *_secret_stores("/v1.0/secrets/nope/key", key="key"),
        ),
    ),
    Api(
        block=SECRETS,
        name="Get bulk secret",
        http="GET /v1.0/secrets/{store}/bulk",
        rpc="GetBulkSecret",
        cases=(
            Case("success", "200, OK", Http("GET", "/v1.0/secrets/store/bulk"), {"store_name": "store"}),
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
        note="Not re-entrant: who has the lock gets `false` too.",
        cases=(
            Case(
                "free",
                "200, OK",
                Http("POST", "/v1.0-alpha1/lock/store", TRY),
                {"store_name": "store", **TRY_RPC},
                before=_free,
            ),
            Case(
                "taken",
                "200, OK",
                Http("POST", "/v1.0-alpha1/lock/store", TRY),
                {"store_name": "store", **TRY_RPC},
                before=_taken,
            ),
            Case(
                "no expiry",
                "400 ERR_MALFORMED_REQUEST, INVALID_ARGUMENT",
                Http("POST", "/v1.0-alpha1/lock/store", {**TRY, "expiryInSeconds": 0}),
                {"store_name": "store", **TRY_RPC, "expiry_in_seconds": 0},
            ),
            *_lock_stores("ERR_TRY_LOCK", "/v1.0-alpha1/lock", TRY, **TRY_RPC),
        ),
    ),
    Api(
        block=LOCK,
        name="Unlock",
        http="POST /v1.0-alpha1/unlock/{store}",
        rpc="UnlockAlpha1",
        note="`status` in the reply: 0 unlocked, 1 nobody holds it, 2 somebody else does.",
        cases=(
            Case(
                "the owner's",
                "200, OK",
                Http("POST", "/v1.0-alpha1/unlock/store", UNLOCK),
                {"store_name": "store", **UNLOCK_RPC},
                before=_mine,
            ),
            Case(
                "another's",
                "200, OK",
                Http("POST", "/v1.0-alpha1/unlock/store", UNLOCK),
                {"store_name": "store", **UNLOCK_RPC},
                before=_taken,
            ),
            *_lock_stores("ERR_UNLOCK", "/v1.0-alpha1/unlock", UNLOCK, **UNLOCK_RPC),
        ),
    ),
    Api(
        block=BINDINGS,
        name="Invoke binding",
        http="POST, PUT /v1.0/bindings/{name}",
        rpc="InvokeBinding",
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
            Case("not JSON", "400 ERR_MALFORMED_REQUEST, -", Http("POST", "/v1.0/bindings/files", b"{")),
        ),
    ),
)
