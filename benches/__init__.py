"""Ours beside its peers."""
