"""OMoE: the orthogonal optimizer."""
