"""How bridges are trained."""
