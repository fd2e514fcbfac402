"""A member of a consumer group whose broker hands out messages: what it does without I/O. Drivers of brokers stand on it."""
