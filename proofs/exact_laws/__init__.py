"""Exact laws of the routing rules."""
