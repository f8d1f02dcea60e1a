"""MoMa: expert choice in groups of a modality."""
