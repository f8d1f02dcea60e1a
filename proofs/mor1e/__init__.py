"""MoR1E and T-REX: rank-one experts."""
