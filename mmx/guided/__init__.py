"""Frozen networks, and one residual that is optimised through them for one input."""
