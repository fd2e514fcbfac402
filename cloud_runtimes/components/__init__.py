"""The built-in components: one folder per vendor, shared by all services that it serves."""
