"""The pytest plugin as a user's tests meet it: fixtures that work, and nothing at all without them."""

from __future__ import annotations

import pytest

pytest_plugins = ["pytester"]
pytestmark = pytest.mark.process


@pytest.fixture
def user(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> pytest.Pytester:
    """A project of its own, in which warnings are errors."""
    for name in ("DAPR_HTTP_PORT", "DAPR_GRPC_PORT", "DAPR_HTTP_ENDPOINT", "DAPR_GRPC_ENDPOINT", "APP_ID"):
        monkeypatch.delenv(name, raising=False)
    # what is ignored is of an editable install alone, as in our own pyproject.toml
    editable = "ignore:Module already imported so cannot be rewritten; _editable:pytest.PytestAssertRewriteWarning"
    pytester.makeini(f"[pytest]\nfilterwarnings =\n    error\n    {editable}\n")
    return pytester


def run(user: pytest.Pytester, passed: int) -> pytest.RunResult:
    result = user.runpytest_subprocess("-p", "no:cacheprovider", timeout=120)
    result.assert_outcomes(passed=passed)
    return result


def test_without_its_fixtures_nothing_is_imported(user: pytest.Pytester) -> None:
    user.makepyfile("""
        import pathlib, sys

        def test_it(request):
            name = "with" if request.config.pluginmanager.hasplugin("cloud_runtimes") else "without"
            pathlib.Path(name).write_text(" ".join(sys.modules))
        """)
    run(user, 1)
    result = user.runpytest_subprocess("-p", "no:cacheprovider", "-p", "no:cloud_runtimes", timeout=120)
    result.assert_outcomes(passed=1)
    more = set((user.path / "with").read_text().split()) - set((user.path / "without").read_text().split())
    assert more == {
        "cloud_runtimes",
        "cloud_runtimes._version",
        "cloud_runtimes.testing",
        "cloud_runtimes.testing.plugin",
    }


def test_a_client_in_memory_for_each_test(user: pytest.Pytester) -> None:
    user.makepyfile("""
        import asyncio, pathlib, pytest

        @pytest.mark.parametrize("again", [1, 2])
        def test_state(cloud_runtimes_client, again):
            assert cloud_runtimes_client.state.get("store", "k") is None
            cloud_runtimes_client.state.save("store", "k", again)
            assert cloud_runtimes_client.state.get("store", "k") == again

        def test_async(cloud_runtimes_client):
            async def use():
                await cloud_runtimes_client.pubsub.publish_async("bus", "topic", {"a": 1})
                async with await cloud_runtimes_client.pubsub.subscribe_async("bus", "topic") as sub:
                    async for event in sub:
                        return event.data

            assert asyncio.run(use()) == {"a": 1}

        def test_a_handler(cloud_runtimes_client):
            cloud_runtimes_client.rpc.register_method("double", lambda n: 2 * n)
            assert cloud_runtimes_client.rpc.invoke_method("test", "double", 21) == 42

        def test_nothing_is_written():
            assert not list(pathlib.Path.cwd().glob(".cloud_runtimes*"))
        """)
    run(user, 5)


def test_a_configuration_of_ones_own(user: pytest.Pytester) -> None:
    user.makepyfile("""
        import pytest
        from cloud_runtimes.errors import ComponentNotFoundError

        @pytest.fixture
        def cloud_runtimes_config(tmp_path):
            orders = {"component": "sqlite", "path": str(tmp_path / "orders.db")}
            return {"capa": {"strict": True}, "state": {"orders": orders}}

        def test_it(cloud_runtimes_client, tmp_path):
            cloud_runtimes_client.state.save("orders", "k", 1)
            assert (tmp_path / "orders.db").exists()
            with pytest.raises(ComponentNotFoundError):
                cloud_runtimes_client.state.get("other", "k")
        """)
    run(user, 1)


def test_a_sidecar_for_an_application_of_ours(user: pytest.Pytester) -> None:
    user.makepyfile("""
        import os, socket
        from cloud_runtimes import CloudRuntimesClient

        def save_order(client):  # what is tested
            client.state.save("orders", "1", {"total": 5})

        def test_what_it_saves(cloud_runtimes_sidecar, cloud_runtimes_client):
            before = dict(os.environ)
            with CloudRuntimesClient(cloud_runtimes_sidecar.http_endpoint) as client:
                client.wait_ready()
                save_order(client)
            assert cloud_runtimes_client.state.get("orders", "1") == {"total": 5}
            assert dict(os.environ) == before

        def test_the_environment(cloud_runtimes_sidecar, monkeypatch):
            for name, value in cloud_runtimes_sidecar.environment.items():
                monkeypatch.setenv(name, value)
            with CloudRuntimesClient() as client:
                save_order(client)
                assert client.state.get("orders", "1") == {"total": 5}

        def test_calls_of_its_methods(cloud_runtimes_serve):
            with socket.create_server(("127.0.0.1", 0)) as free:
                port = free.getsockname()[1]
            sidecar = cloud_runtimes_serve(app_id="shop", app_port=port)
            with CloudRuntimesClient(sidecar.http_endpoint, app_id="shop") as app:
                app.rpc.register_method("double", lambda n: 2 * n)
                with app.rpc.serving(port=port):
                    assert app.rpc.invoke_method("shop", "double", 4) == 8

        def test_resources_of_dapr(cloud_runtimes_serve, tmp_path):
            (tmp_path / "orders.yaml").write_text(
                "apiVersion: dapr.io/v1alpha1\\nkind: Component\\nmetadata: {name: orders}\\n"
                "spec: {type: state.in-memory, version: v1}\\n"
            )
            one, other = cloud_runtimes_serve(resources=tmp_path), cloud_runtimes_serve(resources=[tmp_path])
            assert one.http_port != other.http_port
            for sidecar in (one, other):
                with CloudRuntimesClient(sidecar.http_endpoint) as client:
                    assert client.state.get("orders", "k") is None
                    client.state.save("orders", "k", 1)
                assert sidecar.client.state.get("orders", "k") == 1
        """)
    run(user, 4)


def test_a_sidecar_for_the_official_sdk(user: pytest.Pytester) -> None:
    user.makepyfile("""
        from dapr.clients import DaprClient
        from dapr.conf import settings

        def test_it(cloud_runtimes_sidecar, cloud_runtimes_client, monkeypatch):
            # the SDK looks for the sidecar over HTTP before it speaks gRPC to it
            monkeypatch.setattr(settings, "DAPR_HTTP_PORT", cloud_runtimes_sidecar.http_port)
            with DaprClient(cloud_runtimes_sidecar.grpc_address) as client:
                client.save_state("orders", "1", "total: 5")
                assert client.get_state("orders", "1").data == b"total: 5"
            assert cloud_runtimes_client.state.get("orders", "1") == b"total: 5"
        """)
    run(user, 1)


def test_a_clock_that_is_set_forward(user: pytest.Pytester) -> None:
    user.makepyfile("""
        import threading
        from datetime import timedelta
        from cloud_runtimes import CloudRuntimesClient

        def test_state(cloud_runtimes_client, cloud_runtimes_clock):
            cloud_runtimes_client.state.save("store", "k", 1, ttl=3600)
            cloud_runtimes_clock.advance(3599)
            assert cloud_runtimes_client.state.get("store", "k") == 1
            cloud_runtimes_clock.advance(2)
            assert cloud_runtimes_client.state.get("store", "k") is None

        def test_locks(cloud_runtimes_client, cloud_runtimes_clock):
            assert cloud_runtimes_client.lock.try_lock("locks", "r", expiry=60)
            assert not cloud_runtimes_client.lock.try_lock("locks", "r", expiry=60)
            cloud_runtimes_clock.advance(timedelta(minutes=2))
            assert cloud_runtimes_client.lock.try_lock("locks", "r", expiry=60)

        def test_retries_and_delays(cloud_runtimes_client, cloud_runtimes_clock, cloud_runtimes_events):
            cloud_runtimes_client.pubsub.publish("bus", "orders", 7, delay=86400)
            with cloud_runtimes_client.pubsub.subscribe("bus", "orders") as events:
                assert events.receive(0.2) is None
                cloud_runtimes_clock.advance(86401)
                events.receive(5).retry(delay=3600)
                assert events.receive(0.2) is None
                cloud_runtimes_clock.advance(3601)
                assert events.receive(5).delivery_count == 2
            (event,) = cloud_runtimes_events("bus", "orders").take()
            assert event.data == 7

        def test_jobs(cloud_runtimes_client, cloud_runtimes_clock):
            ran = threading.Semaphore(0)

            @cloud_runtimes_client.schedule.job("nightly")
            def nightly():
                ran.release()

            cloud_runtimes_client.schedule.schedule_job("nightly", schedule=timedelta(days=1))
            with cloud_runtimes_client.schedule.running():
                for _ in range(3):
                    assert not ran.acquire(timeout=0.1)
                    cloud_runtimes_clock.advance(timedelta(days=1, seconds=1))
                    assert ran.acquire(timeout=5)

        def test_clients_of_the_application(cloud_runtimes_clock, tmp_path):
            with CloudRuntimesClient(config={"capa": {"home": str(tmp_path)}}) as client:
                client.state.save("store", "k", 1, ttl=60)
                cloud_runtimes_clock.advance(61)
                assert client.state.get("store", "k") is None
        """)
    run(user, 5)


def test_recorded_events(user: pytest.Pytester) -> None:
    user.makepyfile("""
        import pytest

        def test_it(cloud_runtimes_client, cloud_runtimes_events):
            orders = cloud_runtimes_events("bus", "orders")
            cloud_runtimes_client.pubsub.publish_bulk("bus", "orders", [1, 2, 3])
            assert [event.data for event in orders.take(3)] == [1, 2, 3]
            with pytest.raises(AssertionError, match="0 of 1 events came to bus/orders within 0.1 s"):
                orders.take(timeout=0.1)
        """)
    run(user, 1)
