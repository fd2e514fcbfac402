"""A sidecar as a process of its own: configuration and settings as JSON in the arguments; tells its addresses, ends with its input."""

from __future__ import annotations

import json
import sys

from cloud_runtimes import CloudRuntimesClient
from cloud_runtimes.dapr_server import Sidecar, SidecarSettings


def main() -> None:
    config, settings = (json.loads(text) for text in sys.argv[1:3])
    settings["bindings"] = {name: tuple(binding) for name, binding in settings.get("bindings", {}).items()}
    with (
        CloudRuntimesClient(config=config, app_id="app") as client,
        Sidecar(client, SidecarSettings(**settings)) as one,
    ):
        sys.stdout.write(json.dumps([one.http_address, one.grpc_address]) + "\n")
        sys.stdout.flush()
        sys.stdin.read()


if __name__ == "__main__":
    main()
