"""Readers of router logs, one file a layout, found by discovery: a new layout is one new file in this folder.

A layout's file has NAME, what `recognise` answers; ABOUT, one line; RANK, 0 for a layout that nothing else looks like
and more for general ones, asked in this order; `fits(content, options) -> bool` and `read(content, options) ->
RoutingLog`. `content` is what `logs.files` found in the file, `options` what the caller said.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Sequence
from functools import cache
from typing import Any

from resonance_theory import _arguments as arguments
from resonance_theory.logs.files.content import Content
from resonance_theory.logs.files.opening import ENDINGS, open_source
from resonance_theory.logs.log import RoutingLog
from resonance_theory.logs.readers._options import Options

__all__ = ["layouts", "read", "recognise", "whole_numbers"]


@cache
def layouts() -> dict[str, Any]:
    """The layouts by their names, in the order in which they are asked.

    Example:
        >>> from resonance_theory.logs import layouts
        >>> "sglang-recorder" in layouts()
        True
    """
    names = [module.name for module in pkgutil.iter_modules(__path__) if not module.name.startswith("_")]
    found = [importlib.import_module(f"resonance_theory.logs.readers.{name}") for name in names]
    return {module.NAME: module for module in sorted(found, key=lambda m: (m.RANK, m.NAME))}


def recognise(source: Any) -> str | None:
    """Which layout a file, folder or mapping of arrays has; None where it is no routing log.

    Args:
        source: a path, a mapping of names to arrays, or an array. Hidden states, and whatever else is readable but
            holds neither choices nor counts nor logits, give None; so do endings that no reader knows.

    Returns:
        A name of `layouts()`, or None.

    Raises:
        FileNotFoundError, ValueError, TypeError: the file is missing, damaged or holds Python objects.

    Example:
        >>> import numpy as np
        >>> recognise({"topk_ids": np.array([[[0, 1]], [[2, 1]]])})
        'choices'
        >>> recognise(np.zeros((4, 16, 8)))  # floating-point numbers without a name: hidden states
    """
    if isinstance(source, RoutingLog):
        return None
    if isinstance(source, (str, bytes)) or hasattr(source, "__fspath__"):
        name = str(source).lower()
        import os

        if not name.endswith(ENDINGS) and not os.path.isdir(source) and os.path.exists(source):
            return None
    return _layout(open_source(source), Options())


def whole_numbers(source: Any) -> bool:
    """Whether a source holds arrays of whole numbers alone, and so can be no hidden states.

    Args:
        source: as for `recognise`.

    Example:
        >>> import numpy as np
        >>> whole_numbers({"a": np.zeros((3, 2), int)}), whole_numbers(np.zeros((3, 2)))
        (True, False)
    """
    named = isinstance(source, (str, bytes)) or hasattr(source, "__fspath__")
    if named and not str(source).lower().endswith(ENDINGS):
        return False
    arrays = open_source(source).arrays
    return bool(arrays) and all("int" in str(getattr(a, "dtype", "")) for a in arrays.values())


def _layout(content: Content, options: Options) -> str | None:
    return next((name for name, module in layouts().items() if module.fits(content, options)), None)


def read(
    source: Any,
    *,
    layout: str | None = None,
    experts: int | None = None,
    top: int | None = None,
    scoring: str | None = None,
    bias: Any = None,
    n_group: int | None = None,
    topk_group: int | None = None,
    tokens: Any = None,
    documents: Any = None,
    layers: Sequence[str] | int | None = None,
    parts: Sequence[str] | None = None,
    repeats: str = "keep",
) -> RoutingLog:
    """Read what a router logged.

    Tokens that took no expert at all (padding, cached prefixes) are left out, rows that repeat are found, and `notes`
    says both. Arrays of .npy, .safetensors, .pt and uncompressed .npz files stay mapped where nothing is left out, so
    that they may be larger than memory; logits are read by blocks and only their choices kept. A compressed archive
    may expand to 4 GiB. Nothing is unpickled.

    Args:
        source: a path, a mapping of names to arrays, an array, or a RoutingLog, which is returned.
        layout: a name of `layouts()`, where the file does not tell.
        experts: number of experts, where the file does not tell; else the largest id plus one, as a note says.
        top: experts per token k, for logits, for counts, and for flat lists of ids.
        scoring: softmax, sigmoid, sigmoid+bias or group-limited (`logs.scoring.choose`). It says that the
            floating-point arrays are logits.
        bias: added to the scores for the choice, (experts,) or (layers, experts).
        n_group: groups of experts, for group-limited scoring.
        topk_group: groups that stay candidates.
        tokens: tokens of each step, for counts; else the counts' sum over k.
        documents: document of each token (tokens,).
        layers: names of the layers, or their number for flat lists of ids.
        parts: which parts of a file with several (`law_experts`, `intent_experts`) to read; all unless given.
        repeats: keep the tokens whose row repeats an earlier one at a fixed distance, or drop them.

    Raises:
        FileNotFoundError, ValueError, TypeError, ImportError: one sentence with the file, the layer where there is one,
            and what is allowed.

    Example:
        >>> import numpy as np
        >>> log = read({"topk_ids": np.array([[[0, 1]], [[2, 1]], [[-1, -1]]])}, experts=4)
        >>> log
        <RoutingLog: arrays, 2 tokens, 1 layers, 4 experts, top-2>
        >>> log.notes
        ('33.3% of 3 tokens are padding and left out: 1 have -1 for every expert (padding, or a prefix that was cached).',)
    """
    if isinstance(source, RoutingLog):
        return source
    arguments.choice("repeats", repeats, ("keep", "drop"))
    if experts is not None:
        experts = arguments.whole("experts", experts, 2, 2**31)
    if top is not None:
        top = arguments.whole("top", top, 1, 2**31)
    if isinstance(layers, (bool, str)) or not isinstance(layers, (int, Sequence, type(None))) or layers in (0, [], ()):
        raise ValueError(f"layers = {layers!r} must be the names of the layers, or their number, at least 1")
    options = Options(
        experts=experts,
        top=top,
        scoring=scoring,
        bias=bias,
        n_group=n_group,
        topk_group=topk_group,
        tokens=tokens,
        documents=documents,
        layers=layers,
        parts=(parts,) if isinstance(parts, str) else parts,
        repeats=repeats,
    )
    content = open_source(source)
    if layout is None:
        layout = _layout(content, options)
        if layout is None:
            raise ValueError(
                f"{content.where} is no routing log ({_holds(content)}): name its layout, one of {', '.join(layouts())}, "
                "or scoring= if it holds logits"
            )
    arguments.choice("layout", layout, list(layouts()))
    log: RoutingLog = layouts()[layout].read(content, options)
    return log


def _holds(content: Content) -> str:
    if content.arrays:
        few = list(content.arrays.items())[:4]
        return "it holds " + "; ".join(f"{name!r} {array.dtype} {tuple(array.shape)}" for name, array in few)
    if content.columns is not None:
        return f"it holds the columns {', '.join(list(content.columns)[:8])}"
    if isinstance(content.value, dict):
        return f"it holds the keys {', '.join(map(str, list(content.value)[:8]))}"
    return "it holds nothing that a reader knows"
