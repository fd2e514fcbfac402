"""What the clients of sidecars share: the channel, streams that come back, and drivers whose calls several sidecars have."""
