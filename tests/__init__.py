"""The tests, as a package so that they import their helpers by name."""
