"""AWS: credentials, versions, pages, what its refusals mean, and clocks that differ. moto's server answers, behind a gate that refuses as AWS does."""

from __future__ import annotations

import base64
import logging
import os
import re
import threading
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cloud_runtimes import CloudRuntimesClient
from cloud_runtimes.errors import (
    BulkError,
    CloudRuntimesError,
    DeadlineExceededError,
    InternalError,
    InvalidArgumentError,
    NotFoundError,
    PermissionDeniedError,
    UnauthenticatedError,
    UnavailableError,
    UnsupportedError,
)
from cloud_runtimes.testing import Api
from cloud_runtimes.testing.canary import Canary
from tests.support import Make
from tests.support.aws_gate import AwsGate
from tests.support.forked import Forked
from tests.support.moto import REGION, aws
from tests.support.waiting import running, until

GIVEN = {"region": REGION, "access_key": "test", "secret_key": "test"}


@pytest.fixture
def gate(moto_url: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[AwsGate]:
    """The gate; nothing of the environment counts."""
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    gate = AwsGate(moto_url)
    yield gate
    gate.close()


@pytest.fixture
def on(gate: AwsGate, client: Make) -> Make:
    """A client with settings; those of ``GIVEN`` unless they are set."""
    return lambda **settings: client("aws", **{"url": gate.url, "prefix": f"/{ID}/", **GIVEN, **settings})


ID = uuid.uuid4().hex


@pytest.fixture
def manager(moto_url: str) -> Any:
    return aws(moto_url, "secretsmanager")


@pytest.fixture
def parameters(moto_url: str) -> Any:
    return aws(moto_url, "ssm")


@pytest.fixture
def name(request: pytest.FixtureRequest, manager: Any) -> str:
    """The key of a secret of the test's own, whose value is its name."""
    name = f"{request.node.name.partition('[')[0]}-{uuid.uuid4().hex}"
    manager.create_secret(Name=f"/{ID}/{name}", SecretString=name)
    return name


def log_in(folder: Path, token: str) -> None:
    """Write credentials, as ``aws sso login`` and agents do."""
    text = f"[default]\naws_access_key_id=short\naws_secret_access_key=k\naws_session_token={token}\n"
    (folder / "credentials").write_text(text)


def get(api: Api, client: CloudRuntimesClient, key: str = "absent", **more: Any) -> Any:
    return api.call(client.secret, "get_secret", "s", key, **more)


# -- credentials, regions, endpoints -------------------------------------------


def test_ways_to_credentials(
    gate: AwsGate, client: Make, api: Api, name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    gate.keys = {"mine": ("hunter2", None), "short": ("hunter3", "token"), "profile": ("hunter4", None)}
    prefix = f"/{ID}/"

    def read(**settings: Any) -> str:
        return str(get(api, client("aws", prefix=prefix, **settings), name).value)

    monkeypatch.setenv("AWS_ENDPOINT_URL_SECRETS_MANAGER", gate.url)
    mine = {"access_key": "mine", "secret_key": "hunter2"}
    assert read(**mine, region=REGION) == name
    assert read(access_key="short", secret_key="hunter3", session_token="token", region=REGION) == name
    monkeypatch.setenv("AWS_REGION", "us-east-1")
    monkeypatch.setenv("AWS_DEFAULT_REGION", REGION)  # which boto3 knows, and goes before the other
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "mine")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "hunter2")
    assert read() == name
    monkeypatch.delenv("AWS_DEFAULT_REGION")
    monkeypatch.setenv("AWS_REGION", REGION)
    assert read() == name
    monkeypatch.delenv("AWS_REGION")
    (tmp_path / "credentials").write_text("[shop]\naws_access_key_id=profile\naws_secret_access_key=hunter4\n")
    (tmp_path / "config").write_text(f"[profile shop]\nregion={REGION}\n")
    assert read(profile="shop") == name
    for variable in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(variable)
    monkeypatch.setenv("AWS_PROFILE", "shop")
    assert read() == name


def test_what_is_missing(on: Make, api: Api, tmp_path: Path) -> None:
    none = {"access_key": None, "secret_key": None}
    with pytest.raises(UnauthenticatedError, match="there are no credentials: set AWS_PROFILE"):
        get(api, on(**none))
    with pytest.raises(InvalidArgumentError, match="there is no region: set region, AWS_REGION"):
        get(api, on(region=None))
    with pytest.raises(InvalidArgumentError, match=r"profile \(nobody\) could not be found"):
        get(api, on(profile="nobody", **none))
    (tmp_path / "credentials").write_text("[default]\naws_access_key_id=a\n")
    with pytest.raises(UnauthenticatedError, match=r"cannot be had \(PartialCredentialsError\)"):
        get(api, on(**none))


def test_settings_that_do_not_fit(on: Make) -> None:
    wrong: list[tuple[dict[str, Any], str]] = [
        ({"secret_key": None}, "belong together"),
        ({"access_key": None, "secret_key": None, "session_token": "hunter2"}, "belongs to an access_key"),
        ({"profile": "shop"}, "profile or access_key"),
        ({"secret_key": "a\nb"}, "printable ASCII"),
        ({"prefix": "a b"}, "prefix must be of letters"),
        ({"cache": "2h"}, "at most an hour"),
        ({"engine": "s3"}, "'parameterstore'"),
        ({"url": "aws"}, "no address"),
        ({"url": "http://user:hunter2@aws"}, "no address"),
    ]
    for settings, match in wrong:
        with pytest.raises(InvalidArgumentError, match=match) as caught:
            on(**settings).secret.get_secret("s", "key")
        assert "hunter2" not in str(caught.value)


def test_credentials_that_are_refused_are_not_shown(gate: AwsGate, on: Make, api: Api, canary: Canary) -> None:
    """Nor are they logged by botocore, which logs what it signs."""
    secret = canary.value()
    botocore = logging.getLogger("botocore")
    level = botocore.level
    botocore.setLevel(logging.DEBUG)
    try:
        gate.keys["short"] = ("another", secret)
        wrong = {"unknown": "UnrecognizedClientException", "short": "InvalidSignatureException"}
        for key, code in wrong.items():
            with canary.raises(
                UnauthenticatedError, match=f"credentials are refused .{code}.: set AWS_PROFILE"
            ) as caught:
                get(api, on(access_key=key, secret_key=secret, session_token=secret))
            assert not caught.value.retryable
        with canary.raises(UnauthenticatedError, match="credentials have expired .ExpiredTokenException."):
            get(api, on(access_key="short", secret_key=secret, session_token=f"{secret}x"))
    finally:
        botocore.setLevel(level)


def test_credentials_that_expire_are_looked_for_again(
    gate: AwsGate, on: Make, api: Api, name: str, tmp_path: Path
) -> None:
    gate.keys["short"] = ("k", "first")
    log_in(tmp_path, "first")
    client = on(access_key=None, secret_key=None)
    assert get(api, client, name).value == name
    gate.keys["short"] = ("k", "second")
    log_in(tmp_path, "second")
    assert get(api, client, name).value == name
    gate.keys["short"] = ("k", "third")
    gate.requests.clear()
    for _ in range(2):
        with pytest.raises(UnauthenticatedError, match="have expired"):
            get(api, client, name)
    assert len(gate.requests) == 3, "once more only where they were good before"
    log_in(tmp_path, "third")
    assert get(api, client, name).value == name


def test_credentials_that_expire_while_all_are_read(gate: AwsGate, on: Make, api: Api, tmp_path: Path) -> None:
    def write(token: str) -> None:
        log_in(tmp_path, token)
        gate.keys["short"] = ("k", token)

    class Ending(list[str]):
        def append(self, request: str) -> None:
            super().append(request)
            if len(self) == 2:
                write("second")

    name = f"/{ID}/key"
    page = (200, {"SecretValues": [{"Name": name, "SecretString": "v"}]})
    listed = (200, {"SecretList": [{"Name": name}]})
    gate.planned = [listed, listed, page]
    write("first")
    gate.requests = Ending()
    assert api.call(on(access_key=None, secret_key=None).secret, "get_bulk_secret", "s") == {"key": {"key": "v"}}
    assert [*gate.requests] == ["ListSecrets", "BatchGetSecretValue", "ListSecrets", "BatchGetSecretValue"]


def test_clocks_that_differ(gate: AwsGate, on: Make, api: Api, name: str, caplog: pytest.LogCaptureFixture) -> None:
    client = on()
    for ahead in (3600.0, -7200.0):
        gate.ahead = ahead
        gate.requests.clear()
        assert get(api, client, name).value == name
        assert get(api, client, name).value == name
        assert len(gate.requests) == 3, "its clock is known then"
    assert re.search(r"the clock of this machine differs from that of AWS by 3(59\d|600) s: set it", caplog.text)
    wrong = on(secret_key="wrong")
    with pytest.raises(UnauthenticatedError, match="are refused"):
        get(api, wrong, name)


# -- what refusals mean --------------------------------------------------------

REFUSALS: list[tuple[int, str, type[CloudRuntimesError], str, int]] = [
    (400, "AccessDeniedException", PermissionDeniedError, "is not allowed: User x may not", 1),
    (400, "DecryptionFailure", PermissionDeniedError, "KMS key cannot be used", 1),
    (400, "ThrottlingException", UnavailableError, "more requests than AWS allows", 3),
    (429, "", UnavailableError, "more requests than AWS allows .429", 3),
    (500, "InternalServiceError", UnavailableError, "failure of its own", 3),
    (503, "", UnavailableError, "failure of its own .503", 3),
    (400, "ResourceNotFoundException", NotFoundError, "aws secretsmanager create-secret --name", 1),
    (400, "com.amazonaws#ResourceNotFoundException", NotFoundError, "no secret 'absent' in 's'", 1),
    (400, "ValidationException", InvalidArgumentError, "is refused .ValidationException", 1),
    (404, "", InternalError, "no answer of AWS .status 404", 1),
]


@pytest.mark.parametrize(("status", "code", "error", "match", "times"), REFUSALS)
def test_refusals(
    gate: AwsGate, on: Make, api: Api, canary: Canary, status: int, code: str, error: Any, match: str, times: int
) -> None:
    said = "User x may not" if code.startswith("AccessDenied") else canary.value()
    gate.planned = [(status, {"__type": code, "message": said})] * times
    with canary.raises(error, match=match):
        get(api, on())
    assert gate.planned == []
    assert len(gate.requests) == times


def test_throttling_that_ends(gate: AwsGate, on: Make, api: Api, name: str) -> None:
    gate.planned = [(400, {"__type": "ThrottlingException"})] * 2
    assert get(api, on(), name).value == name


def test_answers_that_are_none(gate: AwsGate, on: Make, api: Api, canary: Canary) -> None:
    for document in ({}, {"SecretString": 1}, {"SecretString": None, "Name": canary.value()}):
        gate.planned = [(200, document)]
        with canary.raises(InternalError, match="this is no answer of AWS"):
            get(api, on())
    for engine, pages in {"secretsmanager": [{}, {"SecretList": 1}], "parameterstore": [{"Parameters": [{}]}]}.items():
        for page in pages:
            gate.planned = [(200, page)]
            api.fails(InternalError, match="this is no answer of AWS")(on(engine=engine).secret, "get_bulk_secret", "s")


def test_an_answer_that_does_not_come(gate: AwsGate, on: Make, api: Api, name: str) -> None:
    client = on()
    assert get(api, client, name).value == name
    gate.silent = True
    begun = time.monotonic()
    with pytest.raises(DeadlineExceededError, match="waiting for an answer"):
        get(api, client, timeout=1.0)
    assert time.monotonic() - begun < 5
    with pytest.raises(UnavailableError, match=r"AWS 127\.0\.0\.1:1 cannot be reached"):
        get(api, on(url="http://127.0.0.1:1"))


# -- secrets -------------------------------------------------------------------


def test_versions(on: Make, manager: Any, api: Api, name: str) -> None:
    first = manager.describe_secret(SecretId=f"/{ID}/{name}")["VersionIdsToStages"]
    manager.put_secret_value(SecretId=f"/{ID}/{name}", SecretString="second")
    client = on(cache="1h")
    assert get(api, client, name).value == "second"
    for metadata in ({"version_stage": "AWSPREVIOUS"}, {"version_id": next(iter(first))}):
        assert get(api, client, name, metadata=metadata).value == name
    with pytest.raises(NotFoundError, match=r"of that version in 's'"):
        get(api, client, name, metadata={"version_stage": "NONE"})


def test_versions_of_a_parameter(on: Make, parameters: Any, api: Api) -> None:
    key = uuid.uuid4().hex
    for value in ("first", "second"):
        parameters.put_parameter(Name=f"/{ID}/{key}", Value=value, Type="SecureString", Overwrite=True)
    parameters.label_parameter_version(Name=f"/{ID}/{key}", ParameterVersion=1, Labels=["old"])
    client = on(engine="parameterstore")
    assert get(api, client, key).value == "second"
    assert get(api, client, key, metadata={"version_id": "1"}).value == "first"
    assert get(api, client, key, metadata={"version_id": "old"}).value == "first"
    with pytest.raises(NotFoundError, match="of that version"):
        get(api, client, key, metadata={"version_id": "9"})
    with pytest.raises(InvalidArgumentError, match="a number, or a label"):
        get(api, client, key, metadata={"version_id": "1:2"})


def test_bytes_and_json(on: Make, manager: Any, api: Api) -> None:
    key = uuid.uuid4().hex
    manager.create_secret(Name=f"/{ID}/{key}", SecretBinary=b"\0\xff")
    assert base64.b64decode(get(api, on(), key).value) == b"\0\xff"
    for text, entries in {
        '{"user": "u", "port": 5432, "more": {"a": [1]}}': {"user": "u", "port": "5432", "more": '{"a":[1]}'},
        '["u"]': {key: '["u"]'},
        "{": {key: "{"},
    }.items():
        manager.put_secret_value(SecretId=f"/{ID}/{key}", SecretString=text)
        assert get(api, on(multi_valued=True), key) == entries
        assert get(api, on(), key) == {key: text}
    manager.delete_secret(SecretId=f"/{ID}/{key}")
    with pytest.raises(NotFoundError, match="aws secretsmanager create-secret"):
        get(api, on(), key)


def test_whole_names(on: Make, manager: Any, api: Api, name: str) -> None:
    arn = manager.describe_secret(SecretId=f"/{ID}/{name}")["ARN"]
    for key in (f"/{ID}/{name}", arn):
        assert get(api, on(prefix=""), key) == {key: name}
    with pytest.raises(InvalidArgumentError, match="AWS has no such names"):
        get(api, on(), arn)


def test_all_of_a_store_in_pages(gate: AwsGate, on: Make, manager: Any, parameters: Any, api: Api) -> None:
    prefix = f"/{uuid.uuid4().hex}/app-"
    keys = [f"{number:03}" for number in range(105)]
    for key in keys:
        manager.create_secret(Name=prefix + key, SecretString=key)
    for key in keys[:25]:
        parameters.put_parameter(Name=prefix + key, Value=key, Type="SecureString")
    parameters.put_parameter(Name=prefix.replace("app", "other"), Value="other", Type="String")
    secrets = api.call(on(prefix=prefix).secret, "get_bulk_secret", "s")
    assert secrets == {key: {key: key} for key in keys}
    assert [gate.requests.count(each) for each in ("ListSecrets", "BatchGetSecretValue")] == [2, 6]
    secrets = api.call(on(prefix=prefix, engine="parameterstore").secret, "get_bulk_secret", "s")
    assert secrets == {key: {key: key} for key in keys[:25]}
    assert gate.requests.count("GetParametersByPath") == 3


def test_some_that_cannot_be_read(gate: AwsGate, on: Make, api: Api) -> None:
    names = [f"/{ID}/{key}" for key in ("there", "kept", "gone")]
    values = [{"Name": names[0], "SecretString": "v"}]
    refused = [
        {"SecretId": names[1], "ErrorCode": "AccessDeniedException", "Message": "User x may not"},
        {"SecretId": names[2], "ErrorCode": "ResourceNotFoundException", "Message": "deleted just now"},
    ]
    gate.planned = [
        (200, {"SecretList": [{"Name": each} for each in names]}),
        (200, {"SecretValues": [], "Errors": refused, "NextToken": "more"}),
        (200, {"SecretValues": values}),
    ]
    with pytest.raises(BulkError) as caught:
        api.call(on().secret, "get_bulk_secret", "s")
    assert caught.value.result == {"there": {"there": "v"}}
    assert {key: type(error) for key, error in caught.value.failed.items()} == {"kept": PermissionDeniedError}


def test_a_cache(gate: AwsGate, on: Make, manager: Any, api: Api, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    client = on(cache="500ms")
    assert get(api, client, name).value == name
    manager.put_secret_value(SecretId=f"/{ID}/{name}", SecretString="second")
    assert get(api, client, name).value == name
    assert until(lambda: bool(get(api, client, name).value == "second"))
    monkeypatch.setattr("cloud_runtimes.components._secret._CACHED", 2)
    for number in range(3):
        manager.create_secret(Name=f"/{ID}/{name}{number}", SecretString="v")
    client = on(cache="1h")
    gate.requests.clear()
    for key in (name, f"{name}0", f"{name}1", f"{name}1", name):
        get(api, client, key)
    assert len(gate.requests) == 4


def test_aws_itself(on: Make, api: Api, name: str) -> None:
    client = on()
    api.call(client, "wait_ready")
    reply = client.native("secret", "s").get_secret_value(SecretId=f"/{ID}/{name}")
    assert reply["SecretString"] == name


def test_a_role_that_may_not_list_is_ready(gate: AwsGate, on: Make) -> None:
    gate.planned = [(400, {"__type": "AccessDeniedException"})]
    on().wait_ready()


# -- configuration -------------------------------------------------------------


@pytest.fixture
def configured(gate: AwsGate) -> Iterator[Make]:
    opened: list[CloudRuntimesClient] = []

    def configured(**settings: Any) -> CloudRuntimesClient:
        table = {"component": "aws", "url": gate.url, "poll_interval": "50ms", **GIVEN, **settings}
        opened.append(CloudRuntimesClient(config={"configuration": {ID: table}}))
        return opened[-1]

    yield configured
    for each in opened:
        each.close()


def test_parameters_are_configuration(configured: Make, parameters: Any, api: Api) -> None:
    key = uuid.uuid4().hex
    client = configured()
    for value in ("first", "second"):
        parameters.put_parameter(Name=f"/{ID}/{key}/a", Value=value, Type="SecureString", Overwrite=True)
    items = api.call(client.configuration, "get_configuration_items", ID, [f"{key}/a", f"{key}/none"])
    (item,) = items.values()
    assert (item.value, item.version.partition("@")[0]) == ("second", "2")
    with pytest.raises(UnsupportedError, match="aws ssm put-parameter changes one"):
        api.call(client.configuration, "save_configuration", ID, {"a": "1"})
    with pytest.raises(InvalidArgumentError, match="Secrets Manager has no configuration"):
        api.call(configured(engine="secretsmanager").configuration, "get_configuration", ID)


def test_a_subscription_outlives_throttling_and_credentials(
    gate: AwsGate, configured: Make, parameters: Any, api: Api, tmp_path: Path
) -> None:
    key = uuid.uuid4().hex

    def put(value: str) -> None:
        parameters.put_parameter(Name=f"/{ID}/{key}", Value=value, Type="String", Overwrite=True)

    gate.keys["short"] = ("k", "first")
    log_in(tmp_path, "first")
    put("0")
    client = configured(access_key=None, secret_key=None)
    with api.call(client.configuration, "subscribe_configuration", ID, [key]) as subscription:
        assert api.call(subscription, "receive", 10)[key].value == "0"
        gate.planned = [(400, {"__type": "ThrottlingException"})] * 5
        put("1")
        assert api.call(subscription, "receive", 60)[key].value == "1"
        log_in(tmp_path, "second")
        gate.keys["short"] = ("k", "second")
        put("2")
        assert api.call(subscription, "receive", 60)[key].value == "2"
        gate.keys["short"] = ("k", "third")
        problem = until(lambda: subscription.health.problem)
        assert isinstance(problem, UnauthenticatedError)
        assert "have expired" in str(problem)
        log_in(tmp_path, "third")
        put("3")
        assert api.call(subscription, "receive", 60)[key].value == "3"


def test_pages_that_miss_a_key_delete_nothing(gate: AwsGate, configured: Make, parameters: Any) -> None:
    key = uuid.uuid4().hex
    parameters.put_parameter(Name=f"/{ID}/{key}/a", Value="1", Type="String")
    client = configured(prefix=f"/{ID}/{key}/")
    with client.configuration.subscribe_configuration(ID) as subscription:
        assert subscription.receive(10)["a"].value == "1"  # type: ignore[index]
        gate.planned = [(200, {"Parameters": []})]
        assert until(lambda: "GetParameters" in gate.requests)
        assert subscription.receive(0.3) is None
        parameters.delete_parameter(Name=f"/{ID}/{key}/a")
        update = subscription.receive(10)
        assert update is not None
        assert update["a"].deleted


@pytest.mark.process
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_forked_child_looks_for_itself(on: Make, name: str) -> None:
    """Also while another thread of the parent looks for credentials."""
    client = on()
    assert client.secret.get_secret("s", name).value == name
    driver: Any = client.secret._frame.driver("s")
    held, end = threading.Event(), threading.Event()

    def hold() -> None:
        with driver._client._lock:
            held.set()
            end.wait()

    with running(hold):
        held.wait()
        child = Forked(lambda: client.secret.get_secret("s", name, timeout=20).value)
        end.set()
    assert child.result() == name
    assert client.secret.get_secret("s", name).value == name
