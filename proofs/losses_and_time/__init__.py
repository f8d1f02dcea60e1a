"""Losses and step time."""
