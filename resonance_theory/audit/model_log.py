"""The choices of a stored model's own routers on a text, of any family: a log for whatever reads logs.

Only local folders are read, and of weights only safetensors: no network, no pickle, no code of the model's.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from resonance_theory.audit.model import LARGEST, _folder, _whole, loaded
from resonance_theory.logs import RoutingLog

__all__ = ["log_model"]


def log_model(
    model: str | Path, text: str | Path, *, length: int = 256, sequences: int = 64, device_map: Any = None
) -> RoutingLog:
    """Run a local model on a text and log its routers' decisions, as `rt.nn.record_routing` does.

    Sequences are read one at a time, and of each only the choices and their weights are kept: memory is the model's. An
    encoder-decoder model reads the same tokens on both sides.

    Args:
        model: folder of a Hugging Face model: configuration, tokenizer, safetensors weights.
        text: UTF-8 file, cut into consecutive sequences of `length` tokens, the documents of the log.
        length: tokens of a sequence, at least 2; fewer where the model or the text is shorter.
        sequences: at most so many are read.
        device_map: as in `from_pretrained` (needs accelerate): "auto" spreads the weights over devices, memory and disk.

    Returns:
        The log, whose source is the folder's name.

    Raises:
        FileNotFoundError, ValueError, TypeError: one sentence each. ModuleNotFoundError without torch and transformers.
    """
    folder = _folder(model)
    config = _config(folder)
    network, ids, tokens = loaded(model, text, config, length=length, sequences=sequences, device_map=device_map)
    torch: Any = importlib.import_module("torch")

    def batches() -> Iterator[dict[str, Any]]:
        for row in ids:
            part = torch.from_numpy(row)[None]
            yield {"input_ids": part, **({"decoder_input_ids": part} if network.config.is_encoder_decoder else {})}

    from resonance_theory.nn.families import record_routing

    try:
        log = record_routing(network, batches(), source=folder.resolve().name)
    except (
        ArithmeticError,
        AttributeError,
        LookupError,
        RuntimeError,
        TypeError,
    ) as problem:  # of the model's own code
        said = f"{type(problem).__name__}: {' '.join(str(problem).split())[:200]}"
        raise ValueError(
            f"{str(folder)!r} holds a {type(network).__name__} that token ids alone do not run ({said})"
        ) from None
    said = f"{ids.size} of the text's {tokens} tokens were read, in sequences of {ids.shape[1]}"
    return RoutingLog(
        **{name: getattr(log, name) for name in log.__dataclass_fields__ if name != "notes"}, notes=(said, *log.notes)
    )


def _config(folder: Path) -> Any:
    """The configuration of the part that reads text, with sizes that a machine can hold."""
    whole = _whole(folder)
    try:
        config = whole.get_text_config()
    except ValueError:
        config = whole
    limits = {**LARGEST, "max_position_embeddings": 2**40}
    for name, high in limits.items():
        value = getattr(config, name, None)
        if type(value) is int and not 1 <= value <= high:
            raise ValueError(f"{name} = {value!r} of {str(folder)!r} must be a whole number in 1..{high}")
    if not isinstance(getattr(config, "vocab_size", None), int):
        raise ValueError(f"{str(folder)!r} holds a {whole.model_type!r} model that reads no text")
    return config
