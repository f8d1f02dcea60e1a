"""The embedded routing log: what the routers of a small language model choose on text that they were not trained on.

    python -m simulations.routing_trace            two minutes on one core; writes resonance_theory/data/

Text and network are those of `language_model`: a byte-level transformer trained on the sources of CPython's library, here
with 16 experts and a learned softmax gate that takes two of them, balanced by the auxiliary loss. Every document is the
beginning of another file of the test split, read in windows of 128 bytes. `routing_trace.safetensors` holds choices, gate
weights and the documents' lengths, `router_logits.safetensors` the logits of the first document. The metadata say with
which text, versions and settings they were made; no text is in them.
"""

from __future__ import annotations

import argparse
import platform
import sysconfig
import tomllib
from pathlib import Path
from typing import Any

import numpy as np

from simulations import _corpus, _language

COMMAND = "python -m simulations.routing_trace"
FOLDER = Path(__file__).parents[1] / "resonance_theory" / "data"
SIZE: dict[str, Any] = {
    "dim": 64, "layers": 4, "heads": 2, "tokens": 128, "grams": [2, 3, 4], "table": 8192,
}  # fmt: skip
EXPERTS, TOP, HIDDEN = 16, 2, 64
STEPS, BATCH, RATE, ALPHA = 400, 16, 0.006, 0.01
DOCUMENTS = 24  # of 1 to 8 windows in turn


def model_of(seed: int) -> Any:
    """The transformer, its routers with room for nearly every choice."""
    from resonance_theory.nn import FeedForwardExperts, ResonanceMoE, ResonanceRouter
    from simulations._causal import CausalRouter
    from simulations._transformer import Transformer

    def feed(_: int) -> Any:
        body = FeedForwardExperts(SIZE["dim"], HIDDEN, EXPERTS)
        router = ResonanceRouter(
            SIZE["dim"],
            EXPERTS,
            rule="token_choice",
            top=TOP,
            gates="linear",
            capacity_factor=2.0,
            statistics=False,
        )
        return ResonanceMoE(CausalRouter(router, "position"), body)

    return Transformer(feed, **SIZE, seed=seed)


def documents() -> list[Any]:
    """Windows (n, 129) of bytes of each document: 128 to read and the next of each to foretell."""
    files = _corpus.collect(Path(sysconfig.get_paths()["stdlib"]))
    found: list[Any] = []
    for path in _corpus.split(files)["test"]:
        windows = _language.windows(np.frombuffer(files[path], np.uint8), SIZE["tokens"])
        wanted = len(found) % 8 + 1
        if len(windows) >= wanted:
            found.append(windows[:wanted])
        if len(found) == DOCUMENTS:
            break
    return found


def trace(model: Any, found: list[Any]) -> tuple[dict[str, Any], float]:
    """(choices, probabilities, logits of every document's tokens by layer, mean loss in nats per byte)."""
    import torch

    model.eval()
    routers = _language.routers_of(model)
    parts: dict[str, list[Any]] = {"expert": [], "probability": [], "logits": []}
    loss = 0.0
    for windows in found:
        for router in routers:
            router.seen = []
        with torch.no_grad():
            x = torch.from_numpy(windows.astype(np.int64))
            loss += float(_language.loss_of(model, x)) * len(windows)
        for name, kept in parts.items():
            kept.append(torch.stack([getattr(router.seen[0][1], name).flatten(0, 1) for router in routers], dim=1))
    for router in routers:
        router.seen = None
    arrays = {name: torch.cat(kept).numpy() for name, kept in parts.items()}
    return arrays, loss / sum(map(len, found))


def main() -> None:
    """Train, trace and write both files."""
    import torch
    from safetensors.numpy import save_file

    parser = argparse.ArgumentParser(prog=COMMAND, description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--out", type=Path, default=FOLDER, metavar="DIR", help="folder of the two files")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(options.seed)
    settings = tomllib.loads((Path(__file__).parent / "language_model.toml").read_text(encoding="utf-8"))
    text = {"corpora": settings["corpora"], "tokens": SIZE["tokens"], "batch": BATCH, "steps": STEPS}
    data = _language.draw(np.random.default_rng(options.seed), **text, calibration_windows=1, test_windows=1)[0]
    model = model_of(options.seed)
    _language.fit(model, data, RATE, ALPHA, "cpu")
    found = documents()
    arrays, loss = trace(model, found)
    weights = np.take_along_axis(arrays["probability"], arrays["expert"].astype(np.int64), axis=2)
    metadata = {
        "made by": COMMAND,
        "model": f"byte-level transformer, 4 layers, {EXPERTS} experts, top-{TOP} of a learned softmax gate, {STEPS} steps",
        "text": f"test split of the library of CPython {platform.python_version()}, not seen in training",
        "text sha256": settings["corpora"][0],
        "loss": f"{loss:.3f} nats per byte",
        "torch": torch.__version__,
        "experts": str(EXPERTS),
        "top": str(TOP),
        "scoring": "softmax",
    }
    lengths = np.array([windows.shape[0] * SIZE["tokens"] for windows in found], np.int32)
    options.out.mkdir(parents=True, exist_ok=True)
    save_file(
        {"choices": arrays["expert"].astype(np.uint8), "weights": weights.astype(np.float16), "lengths": lengths},
        options.out / "routing_trace.safetensors",
        metadata,
    )
    first = arrays["logits"][: 4 * SIZE["tokens"]].astype(np.float16)
    layers = {f"router_logits.{k}": np.ascontiguousarray(first[:, k]) for k in range(first.shape[1])}
    save_file(layers, options.out / "router_logits.safetensors", metadata)
    print(f"{len(weights)} tokens, loss {loss:.3f} nats per byte, in {options.out}")


if __name__ == "__main__":
    main()
