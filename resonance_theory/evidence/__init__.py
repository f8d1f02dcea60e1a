"""Claims, certificates and statistics: how a statement earns its verdict."""
