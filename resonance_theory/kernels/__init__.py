"""Fused routing kernels: from tokens to the assignment of resonance routing in one read of the tokens.

    weight, expert = top_affinity(x, experts, top=1)       # per token: highest GrAP affinities, and whose they are
    slot, load = slots(weight, expert, experts, capacity)  # per choice: its place in the expert's buffer, -1 if dropped
    assignment = route(x, experts, capacity, top=1)        # the compact `Assignment` of rules.resonance.route

NumPy arrays and torch tensors on the CPU run on numba kernels; CUDA tensors find affinities with Triton and sort with
torch, and CuPy arrays go the same way where torch and Triton are installed, without a copy in or out; all others (and
any machine without these) take the array-agnostic references in `naive.py`. For torch, `top_affinity` is differentiable
and all three are operators of `torch.library`, so that `torch.compile` takes them whole. On the CPU a gradient takes the
memory of the last one that was dropped, if it has its size; until then that memory, as much as the tokens', is held back.

The first call on a machine compiles, about 10 s for `route` and 3 s for each of the others and each further type of
float; the logger "resonance_theory.kernels" says so. numba keeps the code beside the package, or in the user's cache
folder, or in NUMBA_CACHE_DIR. Where none of these can be written or read, the kernels are compiled in memory, once in
each process; where numba cannot compile (NUMBA_DISABLE_JIT=1), the references serve. Both are said once, as a warning.
Calls may come from several threads; where numba has neither OpenMP nor TBB, one waits for the other.

What is guaranteed. Affinities are sums in float64, rounded once to the type of the result (float64 for float64
tokens, float32 for all others), and only then compared; ties go to the lower expert, then to the earlier token.
On the CPU the order of all additions is fixed, so that a token's affinity has the same bits, and each expert keeps the
same set, for every number of threads, position and layout of the batch. Between backends the order differs:
results agree unless two float64 sums that differ in their last digits round to different floats, at most about one
float32 affinity in 10^6, and always where sums are exact (integers of moderate size).
"""

from resonance_theory.kernels.dispatch import backend
from resonance_theory.kernels.routing import route, slots, top_affinity

__all__ = ["backend", "route", "slots", "top_affinity"]
