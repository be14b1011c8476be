"""How starter decoders are trained."""
