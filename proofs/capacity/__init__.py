"""How much capacity is needed."""
