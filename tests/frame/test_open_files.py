"""A process that has too many files open is told so, whatever could not be opened: a module, a database, a socket."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from cloud_runtimes._core.os_errors import resource_exhausted

CHILD = """
import asyncio, json, os, resource, sys, tempfile
from cloud_runtimes import CloudRuntimesClient
from cloud_runtimes.errors import CloudRuntimesError

def use(client):
    CALL

for free in range(12):
    if not os.fork():  # what is imported on first use is imported anew in each
        os.environ["CLOUD_RUNTIMES_HOME"] = tempfile.mkdtemp(dir=sys.argv[1])
        client = CloudRuntimesClient(app_id="few", timeout=10)
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (len(os.listdir("/proc/self/fd")) - 1 + free, hard))
        try:
            use(client)
            said = "done"
        except CloudRuntimesError as error:
            said = f"{type(error).__name__} {error.retryable} {'ulimit -n' in str(error)}"
        except BaseException as error:
            said = f"bare {type(error).__name__}: {error}"
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        if said != "done":
            use(client)  # it works once there are files again
        os.write(1, (json.dumps(said) + chr(10)).encode())
        os._exit(0)
    os.wait()
"""
CALLS = {
    "state": "client.state.save('store', 'k', 1)",
    "publish": "client.pubsub.publish('bus', 't', 1)",
    "subscribe": "client.pubsub.subscribe('bus', 't').close()",
    "configuration": "client.configuration.save_configuration('app', {'k': '1'})",
    "lock": "client.lock.try_lock('locks', 'r')",
    "file": "client.file.put_file('files', 'a', b'1')",
    "schedule": "client.schedule.list_jobs()",
    "secret": "client.secret",
    "telemetry": "client.telemetry.tracer('t')",
}


@pytest.mark.process
@pytest.mark.parametrize("service", CALLS)
def test_too_many_open_files(tmp_path: Path, service: str) -> None:
    child = subprocess.run(
        [sys.executable, "-c", CHILD.replace("CALL", CALLS[service]), str(tmp_path)],
        capture_output=True,
        text=True,
        check=True,
    )
    said = [json.loads(line) for line in child.stdout.splitlines()]
    assert len(said) == 12, child.stderr
    assert set(said) == {"done", "ResourceExhaustedError True True"}


def test_an_import_that_says_it_only_in_its_message() -> None:
    assert resource_exhausted(ImportError("/lib/x.so: cannot open shared object file: Too many open files")) is not None
    assert resource_exhausted(ImportError("No module named 'x'")) is None
    assert resource_exhausted(FileNotFoundError(2, "No such file or directory")) is None
    assert resource_exhausted(ValueError("Too many open files")) is None
