"""Bytes ↔ media."""
