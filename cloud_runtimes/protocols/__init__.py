"""The wire formats of the sidecars: messages, errors and documents."""
