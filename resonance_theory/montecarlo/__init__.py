"""Monte Carlo: addressed streams, additive tallies, a pool that cannot change the result, a store that survives."""

from resonance_theory.montecarlo.engine import SamplerError, run
from resonance_theory.montecarlo.store import Store
from resonance_theory.montecarlo.streams import generator
from resonance_theory.montecarlo.task import Tally, Task

__all__ = ["SamplerError", "Store", "Tally", "Task", "generator", "run"]
