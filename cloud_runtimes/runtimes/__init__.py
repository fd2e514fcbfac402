"""The built-in runtimes: one folder each."""
