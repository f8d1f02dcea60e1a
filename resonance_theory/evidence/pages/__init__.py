"""The report of a run, and the figures, from stored records."""
