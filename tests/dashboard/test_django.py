"""The dashboard under Django's ASGI, behind Django's login, as its page in the docs says."""

from __future__ import annotations

import re
import subprocess
import sys
from http.client import HTTPConnection
from http.cookies import SimpleCookie
from pathlib import Path
from urllib.parse import urlencode

import pytest

from tests.support.ports import free_port
from tests.tutorial.conftest import Project
from tests.tutorial.pages import write_files

_USERS = """
import os
os.environ["DJANGO_SETTINGS_MODULE"] = "shop.settings"
import django
django.setup()
from django.contrib.auth.models import User
from django.core.management import call_command
call_command("migrate", verbosity=0)
User.objects.create_user("anna", password="a", is_staff=True)
User.objects.create_user("ben", password="b")
"""


class Session:
    """A browser's cookies, and its requests."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._cookies = SimpleCookie()

    def ask(self, path: str, form: dict[str, str] | None = None) -> tuple[int, str, str]:
        """Return status, body, and where it leads."""
        connection = HTTPConnection("127.0.0.1", self._port, timeout=20)
        headers = {"cookie": "; ".join(f"{name}={each.value}" for name, each in self._cookies.items())}
        if form is not None:
            headers["content-type"] = "application/x-www-form-urlencoded"
        connection.request("GET" if form is None else "POST", path, None if form is None else urlencode(form), headers)
        reply = connection.getresponse()
        for each in reply.headers.get_all("set-cookie") or ():
            self._cookies.load(each)
        body = reply.read().decode()
        connection.close()
        return reply.status, body, reply.headers.get("location", "")

    def log_in(self, user: str, password: str) -> bool:
        """Log in by the form of Django's admin."""
        (token,) = re.findall(r'name="csrfmiddlewaretoken" value="(\w+)"', self.ask("/admin/login/")[1])
        form = {"username": user, "password": password, "csrfmiddlewaretoken": token}
        return self.ask("/admin/login/?next=/ops/", form)[::2] == (302, "/ops/")


@pytest.mark.process
def test_staff_sees_it_and_others_the_login(tmp_path: Path) -> None:
    from django.core.management import call_command

    call_command("startproject", "shop", tmp_path)
    write_files("how-to/dashboard.md", tmp_path)
    subprocess.run([sys.executable, "-c", _USERS], cwd=tmp_path, check=True)
    project, port = Project(tmp_path), free_port()
    try:
        project.start("-m", "uvicorn", "shop.asgi:application", "--port", str(port), "--lifespan", "off")
        project.wait_for("Uvicorn running")
        for user, password in (("", ""), ("ben", "b"), ("anna", "wrong"), ("anna", "a")):
            session = Session(port)
            staff = (user, password) == ("anna", "a")
            assert not user or session.log_in(user, password) == staff
            for path in ("/ops/", "/ops/app.js", "/ops/api/status", "/ops/api/operations/overview", "/ops/metrics"):
                status, body, leads = session.ask(path)
                assert (status, leads) == ((200, "") if staff else (302, "/admin/login/?next=/ops/")), (user, path)
                assert bool(body) == staff
        assert "Traceback" not in project.output()
    finally:
        project.close()
