"""MC-MoE: bit widths and pruning of experts."""
