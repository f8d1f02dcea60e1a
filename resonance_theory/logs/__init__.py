"""What running routers log: choices of experts, gate weights, counts, and where documents end."""

from resonance_theory.logs.log import RoutingLog

__all__ = ["RoutingLog"]
