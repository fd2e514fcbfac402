"""What no user imports: what services, runtimes and components stand on."""
