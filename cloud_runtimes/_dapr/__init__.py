"""The protocol of Dapr: what the sidecar of `cloud_runtimes.sidecar` and a client of a sidecar both need to know of the wire."""
