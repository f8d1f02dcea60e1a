"""SCMoE: contrast of strong and weak routing."""
