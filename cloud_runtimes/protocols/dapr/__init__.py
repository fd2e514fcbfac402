"""The protocol of Dapr: what the sidecar of `cloud_runtimes.dapr_server` and a client of a sidecar both need to know of the wire."""
