"""NATS as the home of all services that it has, and what is said of it before any is used."""

from __future__ import annotations

from typing import ClassVar

from tests.support.homes import Homes


class TestHome(Homes):
    engine = "nats"
    service = "rpc"
    features: ClassVar = ["headers", "host", "http_method", "status"]
