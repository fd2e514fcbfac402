"""A shop: orders come in by HTTP, are shipped by workers, and reported every night."""
