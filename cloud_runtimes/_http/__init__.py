"""HTTP/1.1: a strict parser, a sync and an async client, and the hardened server."""
