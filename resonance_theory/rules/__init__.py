"""Routing rules: one file per rule, its algorithm and its exact law side by side."""
