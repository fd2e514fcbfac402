"""Programs on the library, run from the top of the checkout."""
