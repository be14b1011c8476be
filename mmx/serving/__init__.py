"""Models that stay loaded, and how commands hand their jobs to them."""
