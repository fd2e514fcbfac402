"""The harness table: every runtime and component of ours that the suites run on."""
