"""Shared parts of the sidecar clients: the channel, streams that reconnect, and drivers common to several sidecars."""
