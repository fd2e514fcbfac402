"""The conformance suites: one class per service, to be subclassed with a ``harness`` fixture."""
