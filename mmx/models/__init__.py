"""Model names → files: the starter models, folders, and the hub."""
