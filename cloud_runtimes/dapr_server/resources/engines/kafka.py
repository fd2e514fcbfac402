"""The type of Kafka."""

from __future__ import annotations

from typing import Final

from ..types import ComponentType, is_true


def _servers(text: str) -> str:
    """Return brokers with their ports."""
    hosts = [host.strip() for host in text.split(",")]
    return ",".join(host if host.rpartition(":")[2].isdecimal() else f"{host}:9092" for host in hosts)


def _mechanism(text: str) -> str:
    """Return the name of a SASL mechanism.

    Raises:
        ValueError: it is none of Dapr's.
    """
    mechanism = {"PLAINTEXT": "PLAIN", "SHA-256": "SCRAM-SHA-256", "SHA-512": "SCRAM-SHA-512"}.get(text.upper())
    if mechanism is None:
        raise ValueError("expected SHA-512, SHA-256 or PLAINTEXT")
    return mechanism


def _negated(text: str) -> str:
    return "false" if is_true(text) else "true"


_OPTIONS: Final = (
    "channelbuffersize clientconnectionkeepaliveinterval clientconnectiontopicmetadatarefreshinterval clientid "
    "consumerfetchdefault consumerfetchmin heartbeatinterval maxmessagebytes version"
)
TYPES: Final = {
    "pubsub.kafka": ComponentType(
        "pubsub",
        "kafka",
        {
            "brokers": ("servers", _servers),
            "disabletls": ("tls", _negated),
            "saslmechanism": ("mechanism", _mechanism),
            "saslpassword": ("password", str),
            "saslusername": ("username", str),
        },
        settings={"ensure": "create"},
        without_effect={
            **dict.fromkeys(
                _OPTIONS.split(), "librdkafka has values of its own: give options in a table of the configuration"
            ),
            **dict.fromkeys(("consumeretryenabled", "consumeretryinterval"), "an event that failed comes again"),
            "authtype": "saslUsername and tls say how the client logs in",
            "initialoffset": "a new group begins where the subscription says",
            "sessiontimeout": "give session_timeout",
        },
        refused={
            **dict.fromkeys(
                ("consumergroup", "consumerid"), "the consumer group is the app id: start with that --app-id"
            ),
            **dict.fromkeys(
                ("cacert", "clientcert", "clientkey"), "give tls_ca, tls_certificate and tls_key, the names of files"
            ),
            **dict.fromkeys(("oidcclientid", "oidctokenendpoint", "awsregion"), "give saslUsername and saslPassword"),
            "skipverify": "give tls_ca",
        },
    )
}
