"""Numbers as the papers print them."""
