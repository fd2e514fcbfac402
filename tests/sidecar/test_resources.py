"""Resource files: what they come to, and that all that is wrong is told at once and no secret ever."""

from __future__ import annotations

import itertools
import uuid
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from cloud_runtimes import CloudRuntimesClient
from cloud_runtimes.dapr_server import SidecarSettings
from cloud_runtimes.dapr_server.resources import Resources, check_configs, load
from cloud_runtimes.dapr_server.resources.engines import known_types
from cloud_runtimes.dapr_server.resources.engines.stores import postgres_url
from cloud_runtimes.dapr_server.settings import BulkSubscribe, ComponentInfo, Subscription
from cloud_runtimes.errors import ComponentNotFoundError, InvalidArgumentError
from cloud_runtimes.protocols.dapr.documents import go_duration
from cloud_runtimes.resiliency.policies import Policy, Retries
from tests.support.moto import REGION, aws
from tests.support.objectstore import buckets
from tests.support.vault import VaultStub

CANARY = "hunter2-canary"


def component(name: str, kind: str, *metadata: str, more: str = "", spec: str = "") -> str:
    items = "".join(f"\n  - {each}" for each in metadata) or " []"
    return f"""
apiVersion: dapr.io/v1alpha1
kind: Component
metadata:
  name: {name}
spec:
  type: {kind}
  version: v1
{spec}
  metadata:{items}
{more}
"""


def write(folder: Path, *documents: str) -> list[Path]:
    (folder / "all.yaml").write_text("\n---\n".join(documents))
    return [folder]


def refusal(folder: Path, *documents: str, app_id: str = "shop") -> str:
    with pytest.raises(InvalidArgumentError) as caught:
        load(write(folder, *documents), app_id)
    assert CANARY not in repr(caught.value)
    return str(caught.value)


def open_client(resources: Resources) -> CloudRuntimesClient:
    return CloudRuntimesClient(runtime="capa", app_id="shop", config=resources.config)


def test_types_of_dapr_become_components_of_ours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "secrets.json").write_text('{"db": {"password": "x"}}')
    monkeypatch.setenv("SHOP_KEY", "from the environment")
    resources = load(
        write(
            tmp_path,
            component("memory", "state.in-memory"),
            component("orders", "state.sqlite", '{name: connectionString, value: "orders.db"}'),
            component("bus", "pubsub.in-memory"),
            component(
                "vault",
                "secretstores.local.file",
                "{name: secretsFile, value: secrets.json}",
                '{name: nestedSeparator, value: "."}',
            ),
            component("environment", "secretstores.local.env", "{name: prefix, value: SHOP_}"),
            component("reports", "bindings.localstorage", "{name: rootPath, value: reports}"),
            component("sql", "bindings.sqlalchemy", '{name: url, value: "sqlite:///sql.db"}'),
            component("settings", "configuration.in-memory"),
            component("locks", "lock.in-memory"),
        ),
        "shop",
    )
    assert resources.warnings == ()
    assert resources.bindings == {"reports": ("file", "reports"), "sql": ("database", "sql")}
    assert ComponentInfo("memory", "state.in-memory", "v1", ("ETAG", "TRANSACTIONAL", "TTL")) in resources.components
    assert {each.name for each in resources.components} == {
        "memory", "orders", "bus", "vault", "environment", "reports", "sql", "settings", "locks",
    }  # fmt: skip
    with open_client(resources) as client:
        client.state.save("orders", "k", 1)
        client.state.save("memory", "k", 2)
        assert (client.state.get("orders", "k"), client.state.get("memory", "k")) == (1, 2)
        assert client.secret.get_secret("vault", "db.password").value == "x"
        assert client.secret.get_secret("environment", "KEY").value == "from the environment"
        client.file.put_file("reports", "a.txt", b"report")
        client.database.execute("sql", "CREATE TABLE t (a INTEGER)")
        client.pubsub.publish("bus", "t", 1)
        client.configuration.save_configuration("settings", {"a": "1"})
        assert client.lock.try_lock("locks", "r") is not None
    assert (tmp_path / "orders.db").is_file()
    assert (tmp_path / "reports" / "a.txt").read_bytes() == b"report"
    assert (tmp_path / "sql.db").is_file()
    assert not (tmp_path / ".cloud_runtimes").exists()  # nothing beside what the files name


def test_a_file_of_secrets_is_json_whatever_its_name(tmp_path: Path) -> None:
    (tmp_path / "secrets").write_text('{"db": {"password": "x"}}')
    (tmp_path / "secrets.txt").write_text('{"a": "b"}')
    resources = load(
        write(
            tmp_path,
            component("vault", "secretstores.local.file", f"{{name: secretsFile, value: {tmp_path / 'secrets'}}}"),
            component("text", "secretstores.local.file", f"{{name: secretsFile, value: {tmp_path / 'secrets.txt'}}}"),
        ),
        "shop",
    )
    with open_client(resources) as client:
        assert client.secret.get_secret("vault", "db:password").value == "x"
        assert client.secret.get_secret("text", "a").value == "b"


def test_stores_of_aws(tmp_path: Path, moto_url: str) -> None:
    key = uuid.uuid4().hex
    aws(moto_url, "secretsmanager").create_secret(Name=key, SecretString='{"user": "u"}')
    aws(moto_url, "ssm").put_parameter(Name=f"/{key}/db", Value="x", Type="SecureString")
    fields = [f"{{name: endpoint, value: '{moto_url}'}}", f"{{name: region, value: {REGION}}}"]
    fields += ["{name: accessKey, value: test}", "{name: secretKey, value: test}"]
    entries = "{name: multipleKeyValuesPerSecret, value: 'true'}"
    prefix = f"{{name: prefix, value: /{key}/}}"
    files = write(
        tmp_path,
        component("secrets", "secretstores.aws.secretmanager", *fields),
        component("entries", "secretstores.aws.secretmanager", *fields, entries),
        component("parameters", "secretstores.aws.parameterstore", *fields, prefix),
    )
    with open_client(load(files, "shop")) as client:
        assert client.secret.get_secret("secrets", key) == {key: '{"user": "u"}'}
        assert client.secret.get_secret("entries", key) == {"user": "u"}
        assert client.secret.get_secret("parameters", "db") == {"db": "x"}


@pytest.mark.parametrize(
    ("more", "path"),
    [
        ("", "dapr/db"),
        ("{name: vaultKVPrefix, value: team}", "team/db"),
        ("{name: vaultKVUsePrefix, value: 'false'}", "db"),
    ],
)
def test_a_vault(tmp_path: Path, more: str, path: str) -> None:
    vault = VaultStub()
    fields = [f"{{name: vaultAddr, value: '{vault.url}'}}", f"{{name: vaultToken, value: {vault.token()}}}", more]
    vault.put(path, {"password": "x"})
    resources = load(write(tmp_path, component("vault", "secretstores.hashicorp.vault", *filter(None, fields))), "shop")
    with open_client(resources) as client:
        assert client.secret.get_secret("vault", "db")["password"] == "x"
    vault.close()
    assert "give caCert" in refusal(
        tmp_path, component("vault", "secretstores.hashicorp.vault", *fields[:2], "{name: skipVerify, value: 'true'}")
    )


def test_a_bucket(tmp_path: Path, objectstore_url: str) -> None:
    if objectstore_url.startswith("azurite"):
        pytest.skip("Azurite has no S3")
    server = urlsplit(objectstore_url)
    fields = {
        "bucket": buckets(objectstore_url)[0], "region": "us-east-1", "accessKey": server.username, "secretKey": server.password,
        "endpoint": f"http://{server.hostname}:{server.port}", "disableSSL": "'true'", "forcePathStyle": "'true'",
    }  # fmt: skip
    named = [f"{{name: {name}, value: {value}}}" for name, value in fields.items()]
    resources = load(write(tmp_path, component("reports", "bindings.aws.s3", *named)), "shop")
    with open_client(resources) as client:
        client.file.put_file("reports", "a", b"x")
        assert client.file.get_file("reports", "a") == b"x"
    assert any("key counts as fileName" in each for each in resources.warnings)
    assert "name of the bucket" in refusal(tmp_path, component("reports", "bindings.aws.s3", *named[1:]))
    refused = component("reports", "bindings.aws.s3", *named, "{name: insecureSSL, value: 'true'}")
    assert "give ca_file" in refusal(tmp_path, refused)


@pytest.mark.parametrize("kind", ["secretstores.config_file", "configuration.config_file"])
def test_a_kind_of_file_that_is_not_known_is_told_at_the_start(tmp_path: Path, kind: str) -> None:
    assert "say format" in refusal(tmp_path, component("f", kind, "{name: path, value: values.txt}"))


def test_what_daprd_does_not_mind_is_warned_of(tmp_path: Path) -> None:
    resources = load(
        write(
            tmp_path,
            component("memory", "state.in-memory", more="status: {}").replace("kind:", "Kind:"),
            "apiVersion: dapr.io/v1alpha1\nkind: HTTPEndpoint\nmetadata: {name: web}\nspec: {}",
            "apiVersion: dapr.io/v1alpha1\nkind: Configuration\nmetadata: {name: c}\nspec: {mtls: {enabled: true}}",
            SUBSCRIPTION.format(version="v1alpha1", spec="  Route: /x\n  deadlettertopic: dead\n  retry: 3"),
        ),
        "shop",
    )
    assert [each.name for each in resources.components] == ["memory"]
    assert resources.subscriptions == (Subscription("bus", "orders", "/x", (), "dead", scopes=("shop",)),)
    for part, said in zip(
        (
            "unknown key, key 5 of the table",
            "kind 'HTTPEndpoint': the resource has no effect",
            "kind 'Configuration': the resource has no effect",
            "unknown key",
        ),
        resources.warnings,
        strict=True,
    ):
        assert part in said


def test_numbers_and_truth_values_are_text_where_that_is_wanted(tmp_path: Path) -> None:
    """And of a key that stands twice the last counts: so daprd reads YAML."""
    subscription = """
apiVersion: dapr.io/v2alpha1
kind: Subscription
metadata: {name: 7}
spec: {pubsubname: 5, topic: 2024, deadLetterTopic: 1.5, routes: {default: /x, default: 12}, metadata: {a: 1}}
scopes: [5, true]
"""
    resources = load(write(tmp_path, component("5", "pubsub.in-memory"), subscription), "5")
    assert [each.name for each in resources.components] == ["5"]
    expected = Subscription("5", "2024", "12", (), "1.5", {"a": "1"}, scopes=("5", "true"))
    assert resources.subscriptions == (expected,)
    (warning,) = resources.warnings
    assert warning.endswith("all.yaml: the key at line 18, column 80 stands twice in one table: the last counts")


def test_configurations(tmp_path: Path) -> None:
    file = tmp_path / "config.yaml"
    head = "apiVersion: dapr.io/v1alpha1\nkind: Configuration\nmetadata: {name: c}\nspec: "
    file.write_text(
        f"{head}{{tracing: {{samplingRate: '1'}}, mtls: {{enabled: false}}, httpPipeline: {{handlers: []}}}}"
    )
    (said,) = check_configs([str(file)], "shop")
    assert "(Configuration 'c'): its settings have no effect" in said
    for spec in (
        "mtls: {enabled: true}",
        "secrets: {scopes: [{storeName: vault, defaultAccess: deny}]}",
        "MTLS: {Enabled: true}",
        "api: {denied: [{name: state, version: v1}]}",
        "accessControl: {defaultAction: deny}",
        "httpPipeline: {handlers: [{name: auth, type: middleware.http.bearer}]}",
        "appHttpPipeline: {handlers: [{name: auth, type: middleware.http.bearer}]}",
    ):
        file.write_text(f"{head}{{{spec}}}")
        with pytest.raises(InvalidArgumentError, match=rf"(?i)spec.{spec.partition(':')[0]}.* cannot be held here"):
            check_configs([str(file)], "shop")


@pytest.mark.parametrize("documents", [(), ("Resiliency",)])
def test_with_resources_there_are_declared_names_alone(tmp_path: Path, documents: tuple[str, ...]) -> None:
    given = [f"apiVersion: dapr.io/v1alpha1\nkind: {kind}\nmetadata: {{name: x}}\nspec: {{}}" for kind in documents]
    loaded = load(write(tmp_path, *given), "shop").config
    config = {**loaded, "capa": {**loaded["capa"], "home": f":memory:{tmp_path}"}}
    with CloudRuntimesClient(runtime="capa", app_id="shop", config=config) as client:
        with pytest.raises(ComponentNotFoundError):
            client.state.save("x", "k", 1)
        assert client.schedule.list_jobs() == []


def test_resources_of_another_namespace_are_left_out(tmp_path: Path) -> None:
    there = component("here", "state.sqlite", '{name: connectionString, value: "{namespace}.db"}')
    paths = write(
        tmp_path,
        there,
        component("shops", "state.in-memory").replace("name: shops", "name: shops\n  namespace: shops"),
        component("others", "state.in-memory").replace("name: others", "name: others\n  namespace: others"),
    )
    resources = load(paths, "shop", "shops")
    assert [each.name for each in resources.components] == ["here", "shops"]
    assert resources.config["state"]["here"]["path"] == "shops.shop.db"
    # without a namespace of the process those of the files do not matter
    resources = load(paths, "shop")
    assert [each.name for each in resources.components] == ["here", "shops", "others"]
    assert resources.config["state"]["here"]["path"] == "default.shop.db"


def test_what_is_in_memory_is_of_one_load(tmp_path: Path) -> None:
    paths = write(tmp_path, component("memory", "state.in-memory"))
    with open_client(load(paths, "shop")) as one, open_client(load(paths, "shop")) as other:
        one.state.save("memory", "k", 1)
        assert other.state.get("memory", "k") is None


def test_settings_of_ours_and_values_of_every_form(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WHERE", str(tmp_path / "from-env.db"))
    resources = load(
        write(
            tmp_path,
            component(
                "a",
                "pubsub.sqlite",
                "{name: path, envRef: WHERE}",
                "{name: retention, value: 7d}",
                "{name: maxBytes, value: 2000000}",
                '{name: GROUP_EXPIRY, value: "60"}',
            ),
            component("b", "state.sqlite", f'{{name: path, value: "{tmp_path}/{{appID}}.db"}}'),
        ),
        "shop",
    )
    assert resources.config["pubsub"]["a"] == {
        "component": "sqlite",
        "path": str(tmp_path / "from-env.db"),
        "retention": "7d",
        "max_bytes": 2000000,
        "group_expiry": 60.0,
    }
    assert resources.config["state"]["b"]["path"] == str(tmp_path / "shop.db")


def test_a_secret_is_read_from_its_store_and_never_told(tmp_path: Path) -> None:
    (tmp_path / "s.json").write_text(f'{{"pg": {{"url": "postgresql://u:{CANARY}@h/n"}}, "one": "postgresql://h/n"}}')
    multi = component(
        "vault", "secretstores.local.file", f"{{name: secretsFile, value: {tmp_path}/s.json}}", "{name: multiValued, value: true}"
    )  # fmt: skip
    auth = "auth: {secretStore: vault}"
    reference = "{name: url, secretKeyRef: {name: pg, key: url}}"
    resources = load(
        write(
            tmp_path,
            component("db", "bindings.postgresql", reference, more=auth),  # before the store that it needs
            component("db2", "bindings.postgresql", "{name: url, secretKeyRef: {name: one}}", more=auth),
            multi,
        ),
        "shop",
    )
    assert resources.config["database"]["db"]["url"] == f"postgresql://u:{CANARY}@h/n"
    assert resources.config["database"]["db2"]["url"] == "postgresql://h/n"
    settings = SidecarSettings(app_id="shop", components=resources.components, bindings=resources.bindings)
    assert CANARY not in repr(resources) + repr(settings)
    # a value that does not fit is refused without being told
    (tmp_path / "s.json").write_text(f'{{"pg": {{"url": "{CANARY}"}}}}')
    message = refusal(tmp_path, multi, component("db", "bindings.postgresql", reference, more=auth))
    assert "(Component 'db')" in message
    durable = component("x", "state.sqlite", "{name: durability, secretKeyRef: {name: pg, key: url}}", more=auth)
    assert "a setting is refused" in refusal(tmp_path, multi, durable)
    count = component("x", "state.sqlite", "{name: maxValueBytes, secretKeyRef: {name: pg, key: url}}", more=auth)
    assert "expected a number" in refusal(tmp_path, multi, count)


def test_references_that_lead_nowhere(tmp_path: Path) -> None:
    (tmp_path / "s.json").write_text('{"pg": "x"}')
    vault = component("vault", "secretstores.local.file", f"{{name: secretsFile, value: {tmp_path}/s.json}}")
    auth = "auth: {secretStore: vault}"

    def message_for(reference: str, more: str = auth) -> str:
        wanted = component("db", "bindings.postgresql", f"{{name: url, secretKeyRef: {reference}}}", more=more)
        return refusal(tmp_path, vault, wanted)

    assert "NotFoundError" in message_for("{name: nothing, key: nothing}")
    assert "the secret is one value, which has no such key" in message_for("{name: pg, key: other}")
    assert "auth.secretStore: unknown secret store; known: vault" in message_for(
        "{name: pg}", "auth: {secretStore: safe}"
    )
    assert "needs auth.secretStore" in message_for("{name: pg}", "")
    assert "must have a name" in message_for("{key: pg}")


def test_all_that_is_wrong_is_told_at_once(tmp_path: Path) -> None:
    (tmp_path / "broken.yaml").write_text(f"a: [{CANARY}")
    message = refusal(
        tmp_path,
        component("mongo", "state.reddis", "{name: host, value: localhost}"),
        component("orders", "state.sqlite", f"{{name: tableName, value: {CANARY}}}"),
        component("memory", "state.in-memory", "{name: path, value: x}"),
        component("twice", "pubsub.in-memory"),
        component("twice", "state.in-memory"),
        component("all", "secretstores.local.env"),
        component("odd", "state.in-memory", spec="  retries: 3"),
        "apiVersion: dapr.io/v2\nkind: Component\nmetadata: {name: old}\nspec: {}",
        "- a list",
        "kind: Component",
    )
    for part in (
        "broken.yaml: syntax error at line 1",
        "(Component 'mongo'): spec.type: unknown type 'state.reddis'; did you mean 'state.redis'",
        "(Component 'orders'): unknown metadata, key 1 of the table; known: ",
        "(Component 'memory'): metadata 'path' has no meaning in memory",
        "(Component 'twice'): the name stands in",
        "(Component 'all'): give metadata prefix",
        "(Component 'odd'): unknown key, key 3 of the table",
        "unknown apiVersion 'dapr.io/v2'; did you mean 'dapr.io/v1alpha1'",
        "document 9: expected a resource",
        "document 10: metadata.name must be text",
    ):
        assert part in message, part


@pytest.mark.parametrize(
    ("metadata", "said"),
    [
        ("{name: durability, value: maybe}", "durability"),
        ("{name: maxValueBytes, value: many}", "expected a number"),
        ("{name: path, value: [a]}", "must be text, a number, true or false"),
        ("{name: path}", "must be text, a number, true or false"),
        ("{value: x}", "must have a name"),
        ("just text", "must have a name"),
        ("{name: path, envRef: DAPR_API_TOKEN}", "is not allowed"),
        ('{name: connectionString, value: "file:a.db?mode=ro"}', "without parameters"),
        ('{name: connectionString, value: ":memory:"}', "in-memory"),
        ("{name: path, valu: a}", "unknown key 'valu'"),
    ],
)
def test_a_value_that_does_not_fit(tmp_path: Path, metadata: str, said: str) -> None:
    assert said in refusal(tmp_path, component("orders", "state.sqlite", metadata))


def test_scopes_are_honoured(tmp_path: Path) -> None:
    paths = write(
        tmp_path,
        component("ours", "state.in-memory", more="scopes: [shop, other]"),
        component("theirs", "state.reddis", more="scopes: [other]"),  # not even looked at
    )
    assert [each.name for each in load(paths, "shop").components] == ["ours"]
    assert "state.reddis" in refusal(
        tmp_path, component("theirs", "state.reddis", more="scopes: [other]"), app_id="other"
    )
    assert "scopes must be" in refusal(tmp_path, component("x", "state.in-memory", more="scopes: shop"))


def test_what_has_no_effect_is_warned_of(tmp_path: Path) -> None:
    resources = load(
        write(
            tmp_path,
            component(
                "a",
                "state.in-memory",
                '{name: actorStateStore, value: "true"}',
                "{name: outboxPublishPubsub, value: bus}",
                spec="  initTimeout: 5s",
            ),
            component("b", "state.reddis", spec="  ignoreErrors: true"),
            component("c", "state.sqlite", "{name: durability, value: maybe}", spec="  ignoreErrors: true"),
        ),
        "shop",
    )
    assert [each.name for each in resources.components] == ["a"]
    assert list(resources.config["state"]) == ["a"]
    for part in ("actorStateStore", "outboxPublishPubsub", "initTimeout", "'state.reddis'", "durability"):
        assert any(part in each for each in resources.warnings), part


def test_folders_and_files(tmp_path: Path) -> None:
    one, other = tmp_path / "one", tmp_path / "other"
    one.mkdir()
    other.mkdir()
    (one / "a.yml").write_text(component("a", "state.in-memory") + "\n---\n\n---\n" + component("b", "state.in-memory"))
    (one / "notes.txt").write_text("not looked at")
    (other / "c.yaml").write_text(component("c", "state.in-memory"))
    resources = load([one, other / "c.yaml"], "shop")
    assert [each.name for each in resources.components] == ["a", "b", "c"]
    with pytest.raises(InvalidArgumentError, match="does not exist"):
        load([tmp_path / "nowhere"], "shop")


SUBSCRIPTION = """
apiVersion: dapr.io/{version}
kind: Subscription
metadata: {{name: orders}}
spec:
  pubsubname: bus
  topic: orders
{spec}
scopes: [shop]
"""


def test_subscriptions_of_both_versions(tmp_path: Path) -> None:
    old = "  route: /checkout\n  deadLetterTopic: poison\n  metadata: {rawPayload: true}"
    new = """  routes:
    rules:
    - match: event.type == "x"
      path: /x
    default: /rest
  bulkSubscribe: {enabled: true, maxMessagesCount: 7, maxAwaitDurationMs: 40}"""
    subscriptions = load(
        write(
            tmp_path,
            SUBSCRIPTION.format(version="v1alpha1", spec=old),
            SUBSCRIPTION.format(version="v2alpha1", spec=new),
        ),
        "shop",
    ).subscriptions
    scopes = ("shop",)
    assert subscriptions == (
        Subscription("bus", "orders", "/checkout", (), "poison", {"rawPayload": "true"}, None, scopes),
        Subscription(
            "bus", "orders", "/rest", (('event.type == "x"', "/x"),), None, {}, BulkSubscribe(7, 0.04), scopes
        ),
    )
    assert load([tmp_path], "other").subscriptions == ()


@pytest.mark.parametrize(
    ("version", "spec", "said"),
    [
        ("v1alpha1", "", "spec.route must be"),
        ("v1alpha1", "  routes: {default: /x}", "spec.route must be the path"),
        ("v2alpha1", "  route: /x", "spec.routes must be a table"),
        ("v2alpha1", "  routes: {}", "must have a default or rules"),
        ("v2alpha1", "  routes: {rules: [{match: x}]}", "a list of match and path"),
        ("v2alpha1", "  routes: {default: /x}\n  bulkSubscribe: {enabled: true, maxMessagesCount: -1}", "whole number"),
        ("v2alpha1", "  routes: {default: /x}\n  deadLetterTopic: [a]", "spec.deadLetterTopic must be text"),
        ("v2alpha1", "  routes: {default: /x}\n  metadata: a", "spec.metadata must be"),
    ],
)
def test_subscriptions_that_are_none(tmp_path: Path, version: str, spec: str, said: str) -> None:
    assert said in refusal(tmp_path, SUBSCRIPTION.format(version=version, spec=spec))


RESILIENCY = """
apiVersion: dapr.io/v1alpha1
kind: Resiliency
metadata: {name: all}
spec:
  policies:
    timeouts: {short: 500ms, DefaultTimeoutPolicy: 1m30s}
    retries:
      few: {policy: constant, duration: 10ms, maxRetries: 2, matching: {httpStatusCodes: "429,500-599", gRPCStatusCodes: "14"}}
      DefaultComponentInboundPubsubRetryPolicy: {policy: exponential, maxInterval: 2s}
    circuitBreakers:
      cb: {trip: consecutiveFailures > 3, timeout: 30s}
  targets:
    apps: {shop: {timeout: short, retry: few, circuitBreaker: cb}}
    components: {bus: {outbound: {timeout: short}, inbound: {retry: few}}}
"""


def test_resiliency_is_handed_over_as_data(tmp_path: Path) -> None:
    resources = load(write(tmp_path, RESILIENCY), "shop")
    policies = resources.resiliency
    assert policies is not None
    few = Retries(2, 0.01, False, 60.0, ((429, 429), (500, 599)), ((14, 14),))
    shop = policies.app("shop")
    assert (shop.timeout, shop.retries) == (0.5, few)
    assert shop.breaker is not None
    assert (shop.breaker.timeout, shop.breaker.probes) == (30.0, 1)
    assert policies.app("other") == Policy(90.0, None)
    assert policies.component("bus", "Pubsub", inbound=False) == Policy(0.5, None)
    assert policies.component("bus", "Pubsub", inbound=True) == Policy(90.0, few)
    other = policies.component("other", "Pubsub", inbound=True)
    assert other.retries == Retries(None, 5.0, True, 2.0)
    assert list(few.delays()) == [0.01, 0.01]
    assert other.retries is not None
    waits = list(itertools.islice(other.retries.delays(), 50))
    assert all(0.25 <= wait <= 3.0 for wait in waits)
    assert len(resources.warnings) == 1
    for part in ("component 'bus'", "default 'ComponentInboundPubsub'"):
        assert part in resources.warnings[0]
    assert "shop" not in resources.warnings[0]
    assert [few.takes(status) for status in (404, 429, 503)] == [False, True, True]
    assert [few.takes(code) for code in (0, 2, 14)] == [False, False, True]
    assert [Retries().takes(status) for status in (200, 404, 500)] == [False, True, True]


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("500ms", "soon", "expected a duration"),
        ("retry: few,", "retry: many,", "retry: unknown policy; known: "),
        ("policy: constant", "policy: sometimes", "constant or exponential"),
        ("429,500-599", "5xx", "expected codes and ranges"),
        ("maxRetries: 2", "maxRetries: two", "whole number"),
        ("trip:", "tripped:", "unknown key 'tripped'"),
        ("targets:", "goals:", "unknown key, key 2 of the table; known: policies, targets"),
        (
            "outbound: {timeout: short}",
            "outward: {timeout: short}",
            "targets.components.bus: unknown key, key 1 of the table; known: inbound",
        ),
    ],
)
def test_policies_that_are_none(tmp_path: Path, old: str, new: str, said: str) -> None:
    assert old in RESILIENCY
    assert said in refusal(tmp_path, RESILIENCY.replace(old, new, 1))


@pytest.mark.parametrize(("text", "seconds"), [("1h2m3.5s", 3723.5), ("250us", 0.00025), ("0s", 0.0)])
def test_durations_of_go(text: str, seconds: float) -> None:
    assert go_duration(text) == pytest.approx(seconds)


@pytest.mark.parametrize("text", ["", "5", "s", "-1s", "1 s", None, "1d"])
def test_durations_that_are_none(text: Any) -> None:
    with pytest.raises(ValueError, match="expected a duration"):
        go_duration(text)


@pytest.mark.parametrize(
    ("text", "url"),
    [
        ("host=db user=u password='p w' port=5433 dbname=n sslmode=disable", "postgresql://u:p%20w@db:5433/n?sslmode=disable"),
        (r"user=u password='it\'s'", "postgresql://u:it%27s@localhost:5432/u"),
        ("postgres://u:p@h/n", "postgresql://u:p@h/n"),
        ("postgresql+asyncpg://h/n", "postgresql+asyncpg://h/n"),
    ],
)  # fmt: skip
def test_connection_strings_of_postgresql(text: str, url: str) -> None:
    assert postgres_url(text) == url


def test_a_connection_string_that_is_none() -> None:
    with pytest.raises(ValueError, match="expected postgresql://") as caught:
        postgres_url(f"=={CANARY}")
    assert CANARY not in str(caught.value)


def test_the_types_there_are() -> None:
    assert {"state.in-memory", "state.sqlite", "pubsub.in-memory", "bindings.postgresql", "lock.sqlite"} <= set(
        known_types()
    )
    assert {"lock.env", "state.file", "bindings.in-memory", "rpc.sqlite"}.isdisjoint(known_types())
