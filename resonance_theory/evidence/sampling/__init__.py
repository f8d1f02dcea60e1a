"""Monte Carlo: addressed streams, additive tallies, a pool that cannot change the result, a store that survives."""

from resonance_theory.evidence.sampling.engine import SamplerError, run
from resonance_theory.evidence.sampling.store import Store
from resonance_theory.evidence.sampling.streams import generator
from resonance_theory.evidence.sampling.task import Tally, Task

__all__ = ["SamplerError", "Store", "Tally", "Task", "generator", "run"]
