"""The log of events that components with a database of their own share: claims, members and dead letters, without I/O."""
