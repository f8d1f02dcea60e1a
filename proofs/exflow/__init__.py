"""ExFlow: placement of experts by the affinity between layers."""
