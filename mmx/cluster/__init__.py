"""A command's jobs on the machines of a Ray cluster."""
