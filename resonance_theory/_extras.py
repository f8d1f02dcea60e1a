"""Optional packages: what to install for a module that is missing."""

from __future__ import annotations

__all__ = ["hint", "of_claims"]

# module -> its package and the smallest extra of resonance-theory that brings it
_FROM = {
    "matplotlib": ("matplotlib", "plot"),
    "sympy": ("sympy", "verify"),
    "mpmath": ("mpmath", "verify"),
    "flint": ("python-flint", "verify"),
    "jinja2": ("jinja2", "report"),
    "latex2mathml": ("latex2mathml", "report"),
    "numba": ("numba", "speed"),
    "torch": ("torch", "torch"),
    "sklearn": ("scikit-learn", "training"),
    "triton": ("triton", "triton"),
    "transformers": ("transformers", "peers"),
    "distributed": ("distributed", "dask"),
    "mpi4py": ("mpi4py", "mpi"),
    "cupy": ("cupy-cuda13x", "cupy13"),
}


def hint(module: str | None) -> str:
    """One sentence on a missing module, with the smallest thing that brings it.

    Example:
        >>> hint("matplotlib.figure")
        "the package 'matplotlib' is needed: pip install matplotlib, or resonance-theory with its extra [plot]"
    """
    top = (module or "").partition(".")[0]
    if top not in _FROM:
        return f"the package {module!r} is needed"
    package, extra = _FROM[top]
    return f"the package {top!r} is needed: pip install {package}, or resonance-theory with its extra [{extra}]"


def of_claims(module: str | None) -> bool:
    """Whether a module comes with the extra that claims in general need.

    Example:
        >>> of_claims("sympy.core"), of_claims("torch")
        (True, False)
    """
    return _FROM.get((module or "").partition(".")[0], ("", ""))[1] == "verify"
