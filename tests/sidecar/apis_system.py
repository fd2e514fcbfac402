"""Rows of the table of APIs: the sidecar itself, and what it does not have."""

from __future__ import annotations

from tests.sidecar.rows import Api, Case, Http

SYSTEM = "The sidecar"
ABSENT = "Not served"


def _refused(name: str, http: tuple[str, str, str], rpc: str, answers: str) -> Api:
    documented, method, path = http
    return Api(
        block=ABSENT,
        name=name,
        http=documented,
        rpc=rpc,
        served=False,
        cases=(Case("always", answers, Http(method, path, {}), {}),),
    )


_NO_PLACEMENT = "400 ERR_ACTOR_NO_PLACEMENT, UNAVAILABLE"


def _actor(name: str, method: str, rest: str, rpc: str) -> Api:
    path = f"/v1.0/actors/{{type}}/{{id}}/{rest}"
    sent = path.replace("{type}", "t").replace("{id}", "1").replace("{method}", "m").replace("{key}", "k")
    return _refused(name, (f"{method} {path}", method, sent.replace("{name}", "n")), rpc, _NO_PLACEMENT)


def _alone(name: str, rpc: str) -> Api:
    return Api(block=ABSENT, name=name, rpc=rpc, served=False, cases=(Case("always", "-, UNAVAILABLE", rpc={}),))


_WORKFLOW = {
    "Start": ("POST", "{name}/start"),
    "Get": ("GET", "{id}"),
    "Purge": ("POST", "{id}/purge"),
    "Terminate": ("POST", "{id}/terminate"),
    "Pause": ("POST", "{id}/pause"),
    "Resume": ("POST", "{id}/resume"),
    "RaiseEvent": ("POST", "{id}/raiseEvent/{event}"),
}


def _workflow(operation: str, version: str, suffix: str) -> Api:
    method, rest = _WORKFLOW[operation]
    path = f"/{version}/workflows/{{component}}/{rest}"
    sent = path.replace("{component}", "dapr").replace("{", "").replace("}", "")
    return _refused(
        f"{operation} workflow ({suffix.lower()})",
        (f"{method} {path}", method, sent),
        f"{operation}Workflow{suffix}",
        _NO_PLACEMENT,
    )


def _subtle(operation: str) -> Api:
    path = f"/v1.0-alpha1/subtlecrypto/{{name}}/{operation.lower()}"
    return _refused(
        f"Subtle crypto: {operation}",
        (f"POST {path}", "POST", path.replace("{name}", "n")),
        f"Subtle{operation}Alpha1",
        "501 ERR_API_UNIMPLEMENTED, UNIMPLEMENTED",
    )


APIS = (
    Api(
        block=SYSTEM,
        name="Get metadata",
        http="GET /v1.0/metadata",
        rpc="GetMetadata",
        cases=(Case("success", "200, OK", Http("GET", "/v1.0/metadata"), {}),),
    ),
    Api(
        block=SYSTEM,
        name="Set metadata",
        http="PUT /v1.0/metadata/{key}",
        rpc="SetMetadata",
        note="The body is the value.",
        cases=(
            Case("success", "204, OK", Http("PUT", "/v1.0/metadata/k", b"v"), {"key": "k", "value": "v"}),
            Case("no key", "-, OK", rpc={"value": "v"}),
        ),
    ),
    Api(
        block=SYSTEM,
        name="Health",
        http="GET /v1.0/healthz",
        note="Without a token. `?appid=` asks whose sidecar it is.",
        cases=(
            Case("success", "204, -", Http("GET", "/v1.0/healthz")),
            Case("the application's", "204, -", Http("GET", "/v1.0/healthz?appid=app")),
            Case(
                "the application does not listen yet",
                "500 ERR_HEALTH_NOT_READY, -",
                Http("GET", "/v1.0/healthz"),
                over="absent application",
            ),
            Case(
                "another application's", "500 ERR_HEALTH_APPID_NOT_MATCH, -", Http("GET", "/v1.0/healthz?appid=other")
            ),
        ),
    ),
    Api(
        block=SYSTEM,
        name="Outbound health",
        http="GET /v1.0/healthz/outbound",
        note="Without a token.",
        cases=(
            Case("success", "204, -", Http("GET", "/v1.0/healthz/outbound")),
            Case(
                "the application does not listen yet",
                "204, -",
                Http("GET", "/v1.0/healthz/outbound"),
                over="absent application",
            ),
        ),
    ),
    Api(
        block=SYSTEM,
        name="Shutdown",
        http="POST /v1.0/shutdown",
        rpc="Shutdown",
        note="What is under way is answered first. `dapr-force-shutdown` makes no difference.",
        cases=(
            Case("over HTTP", "204, -", Http("POST", "/v1.0/shutdown"), over="shutdown over HTTP"),
            Case("over gRPC", "-, OK", rpc={}, over="shutdown over gRPC"),
        ),
    ),
    _actor("Invoke actor", "POST", "method/{method}", "InvokeActor"),
    _actor("Execute actor state transaction", "POST", "state", "ExecuteActorStateTransaction"),
    _actor("Get actor state", "GET", "state/{key}", "GetActorState"),
    _actor("Register actor reminder", "POST", "reminders/{name}", "RegisterActorReminder"),
    _actor("Get actor reminder", "GET", "reminders/{name}", "GetActorReminder"),
    _actor("Unregister actor reminder", "DELETE", "reminders/{name}", "UnregisterActorReminder"),
    _actor("Register actor timer", "POST", "timers/{name}", "RegisterActorTimer"),
    _actor("Unregister actor timer", "DELETE", "timers/{name}", "UnregisterActorTimer"),
    _alone("Unregister actor reminders by type", "UnregisterActorRemindersByType"),
    _alone("List actor reminders", "ListActorReminders"),
    _alone("Subscribe to actor events", "SubscribeActorEventsAlpha1"),
    *(
        _workflow(operation, version, suffix)
        for version, suffix in (("v1.0-alpha1", "Alpha1"), ("v1.0-beta1", "Beta1"))
        for operation in _WORKFLOW
    ),
    *(
        _refused(
            name,
            (f"PUT /v1.0-alpha1/crypto/{{name}}/{name.lower()}", "PUT", f"/v1.0-alpha1/crypto/n/{name.lower()}"),
            f"{name}Alpha1",
            "500 ERR_CRYPTO_PROVIDERS_NOT_CONFIGURED, INTERNAL",
        )
        for name in ("Encrypt", "Decrypt")
    ),
    *(_subtle(name) for name in ("GetKey", "Encrypt", "Decrypt", "WrapKey", "UnwrapKey", "Sign", "Verify")),
    *(
        _refused(
            f"Converse ({version})",
            (
                f"POST /v1.0-{version}/conversation/{{name}}/converse",
                "POST",
                f"/v1.0-{version}/conversation/n/converse",
            ),
            f"Converse{version.capitalize()}",
            "400 ERR_CONVERSATION_NOT_FOUND, INVALID_ARGUMENT",
        )
        for version in ("alpha1", "alpha2")
    ),
)
