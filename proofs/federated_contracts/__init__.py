"""Asynchronous federated learning with contracts."""
