"""Claims: one file per claim, found by discovery."""
