"""AdapMoE: experts in a cache, allocated over layers and gated by sensitivity."""
