"""Figures as pure functions of stored results: one file each, found by discovery; `resonance figures` draws them all.

A figure's file has `DATA`, the files of simulations/results/ that it reads; `CAPTION`, the claim and the data behind it;
and `draw(*data) -> Figure`, which computes nothing. Copy `_template.py` to begin one.
"""
