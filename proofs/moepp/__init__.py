"""MoE++: zero-computation experts beside feed-forward ones."""
