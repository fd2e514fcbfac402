"""The recipes run as they are written."""

from __future__ import annotations

import configparser
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.packaging.builds import run, tool
from tests.support.ports import free_port
from tests.tutorial.conftest import SHOP, Project, ask, wait_until
from tests.tutorial.pages import DOCS, STEPS, files_of, write_files


def test_the_tutorial_shows_the_files_of_the_shop() -> None:
    shown: dict[str, str] = {}
    for step in STEPS:
        shown |= files_of(f"tutorial/{step}")
    assert set(shown) > {"shop/handlers.py", "shop/web.py", "tests/test_shop.py", "Dockerfile", "compose.yaml"}
    for name, text in shown.items():
        assert text == (SHOP / name).read_text(encoding="utf-8"), name


@pytest.mark.promise("E2")
@pytest.mark.process
def test_django_behind_gunicorn_and_uvicorn_with_a_worker(tmp_path: Path) -> None:
    from django.core.management import call_command

    call_command("startproject", "shop", tmp_path)
    write_files("how-to/django.md", tmp_path)
    project = Project(tmp_path)
    wsgi, asgi = free_port(), free_port()
    try:
        project.start("-m", "gunicorn", "--preload", "--workers", "2", "-b", f"127.0.0.1:{wsgi}", "shop.wsgi")
        project.start("-m", "uvicorn", "shop.asgi:application", "--port", str(asgi), "--lifespan", "off")
        project.start("-m", "cloud_runtimes", "run", "shop.workers:client")
        project.wait_for("Booting worker", 2)
        project.wait_for("Uvicorn running")
        project.wait_for("1 subscription")
        for number in range(4):
            order = {"id": str(number), "item": "tea"}
            assert ask(f"http://127.0.0.1:{wsgi}/orders", order) == order
        expected = {"order": order, "mailed": "webmaster@localhost"}
        wait_until(lambda: ask(f"http://127.0.0.1:{asgi}/orders/3") == expected, project.output)
        assert "Traceback" not in project.output()
    finally:
        project.close()


def test_the_unit_of_systemd_is_valid(tmp_path: Path) -> None:
    text = files_of("how-to/deploy.md")["shop-worker.service"]
    unit = configparser.ConfigParser(interpolation=None)
    unit.optionxform = str  # type: ignore[assignment,method-assign]
    unit.read_string(text)
    _, _, arguments = unit["Service"]["ExecStart"].partition("/bin/cloud-runtimes ")
    assert arguments.startswith("run shop.handlers:client")
    if shutil.which("systemd-analyze"):
        path = tmp_path / "shop-worker.service"
        path.write_text(text.replace(unit["Service"]["ExecStart"].split()[0], sys.executable), encoding="utf-8")
        done = run("systemd-analyze", "verify", path)
        assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.process
def test_the_files_for_containers_belong_together() -> None:
    shown = files_of("how-to/deploy.md")
    assert shown["Dockerfile"] == (SHOP / "Dockerfile").read_text(encoding="utf-8")
    manifests: list[dict[str, Any]] = list(yaml.safe_load_all(shown["shop.yaml"]))
    assert [each["kind"] for each in manifests] == ["Deployment", "Service", "Deployment"]
    pods = {}
    for each in manifests:
        if each["kind"] == "Deployment":
            template = each["spec"]["template"]
            assert each["spec"]["selector"]["matchLabels"] == template["metadata"]["labels"]
            (container,) = template["spec"]["containers"]
            pods[template["metadata"]["labels"]["app"]] = ports = {port["name"] for port in container["ports"]}
            for probe in ("readinessProbe", "livenessProbe"):
                (check,) = (container[probe][kind] for kind in ("httpGet", "tcpSocket") if kind in container[probe])
                assert check["port"] in ports
                assert check.get("path", "/healthz") == "/healthz"
    service = manifests[1]["spec"]
    assert service["ports"][0]["targetPort"] in pods[service["selector"]["app"]]

    compose = SHOP / "compose.yaml"
    done = run(tool("check-jsonschema"), "--builtin-schema", "vendor.compose-spec", compose)
    assert done.returncode == 0, done.stdout
    services = yaml.safe_load(compose.read_text(encoding="utf-8"))["services"]
    assert set(services) == {"db", "web", "worker", "schedule"}
    for name in ("web", "worker", "schedule"):
        assert services[name]["environment"]["CLOUD_RUNTIMES_HOME"].endswith("@db/shop")


def test_the_scaler_of_keda_reads_what_the_dashboard_tells() -> None:
    manifest = yaml.safe_load(files_of("how-to/recipes.md")["scale.yaml"])
    (trigger,) = manifest["spec"]["triggers"]
    assert trigger["type"] == "metrics-api"
    assert trigger["metadata"]["valueLocation"] == "value"
    assert manifest["spec"]["scaleTargetRef"]["name"] in files_of("how-to/deploy.md")["shop.yaml"]
    dashboard = (DOCS / "how-to/dashboard.md").read_text(encoding="utf-8")
    assert trigger["metadata"]["url"] in dashboard


def test_the_procfile_runs_what_deploy_runs() -> None:
    processes = yaml.safe_load(files_of("how-to/recipes.md")["Procfile"])
    assert processes["worker"].startswith("cloud-runtimes run shop.handlers:client")
    assert processes["web"].startswith("uvicorn shop.web:app")
