"""Internal foundation of services, runtimes and components; users import nothing from it."""
