"""Geometry of gates and tokens."""
