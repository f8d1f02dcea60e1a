"""Studies: one file and one TOML per study, found by discovery."""
