"""Rows with labels: read, turned into targets, split without leaks, and recognized again by their hashes."""
