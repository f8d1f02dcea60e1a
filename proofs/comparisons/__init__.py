"""Which rule is better, and when."""
