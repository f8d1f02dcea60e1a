"""A claim and its checks, certificates, the ledger, and which published statements it covers."""
