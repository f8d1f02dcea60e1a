"""Homogenization of experts."""
