"""The one training loop, and what keeps a run whole."""
