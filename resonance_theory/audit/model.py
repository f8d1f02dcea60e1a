"""Audit of a model's own routers: what enters each Mixture-of-Experts block on a text, beside GrAP gates.

A learned router of Mixtral's kind chooses by inner products (its logits), not by cosines. It is audited as it chooses:
by the inner products of the captured hidden states with its weight, whose choices are compared with the model's own.
Only local folders are read, and of weights only safetensors: no network, no pickle, no code of the model's.
"""

from __future__ import annotations

import importlib
import json
import logging
import re
import shutil
import tempfile
import weakref
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from resonance_theory import _arguments as arguments
from resonance_theory.audit import AuditReport, audit
from resonance_theory.results import Result

__all__ = ["Capture", "ModelAudit", "UnlikeMixtral", "audit_model", "capture", "loaded"]

_LOCAL = {"local_files_only": True, "trust_remote_code": False}
LARGEST = {"hidden_size": 2**17, "intermediate_size": 2**20, "vocab_size": 2**24, "num_hidden_layers": 1000}
LAYERS = 3  # layers of a figure, each with two rows


class UnlikeMixtral(ValueError):
    """The model's routers do not choose by inner products alone: `audit.model_log` logs what they choose."""


@dataclass(frozen=True)
class Capture:
    """What one router saw and did; B sequences of s tokens.

    name: of its block; hidden (B, s, d) and logits (B, s, n): float32, or float64 of a float64 model; chosen (B, s, l):
    the experts that the model took; weight (n, d): the router's.
    """

    name: str
    hidden: NDArray[Any]
    logits: NDArray[Any]
    chosen: NDArray[np.int64]
    weight: NDArray[Any]

    def choice(self, top: int) -> NDArray[np.int64]:
        """The experts of the largest inner products in float64, (B, s, top): what the audit routes by."""
        scores = self.hidden.astype(np.float64) @ self.weight.astype(np.float64).T
        return np.argsort(-scores, axis=-1, kind="stable")[..., :top]

    @property
    def agreement(self) -> float:
        """Share of tokens for which these are the experts that the model took; less than 1 by rounding in the model."""
        found = np.sort(self.choice(self.chosen.shape[-1]), axis=-1)
        return float((found == np.sort(self.chosen, axis=-1)).all(axis=-1).mean())


@dataclass(frozen=True, repr=False)
class ModelAudit(Result):
    """A model's routers and GrAP gates on the same hidden states, layer by layer in the same order.

    own, grap: the two audits; agreement: `Capture.agreement` of each layer; top: experts per token in the model;
    read, tokens: tokens the model read, and tokens of the text.
    """

    own: AuditReport
    grap: AuditReport
    agreement: tuple[float, ...]
    top: int
    read: int
    tokens: int

    def summary(self) -> str:
        return f"{self.own.source}, {len(self.own.layers)} routers, {self.read} tokens read"

    def to_json(self) -> dict[str, Any]:
        """Plain dictionaries, lists and numbers, with version, commit and time."""
        fields = {
            "model_top": self.top,
            "tokens_read": self.read,
            "tokens": self.tokens,
            "agreement": self.agreement,
            "own": self.own.to_json(),
            "grap": self.grap.to_json(),
        }
        return self.record("resonance-theory model audit 1", fields)

    def rows(self) -> list[dict[str, Any]]:
        """One dictionary for each layer, routing and kind of gates."""
        both = (("own router", self.own), ("GrAP", self.grap))
        return [{"gates": name, **row} for name, report in both for row in report.rows()]

    def plot(self, ax: Any = None) -> Any:
        """Draw the own routers' drops against the capacity factor, and return the Matplotlib Axes."""
        return self.own.plot(ax)

    def table(self, details: bool | None = None) -> str:
        """Both audits' tables for a terminal."""
        least, greatest = min(self.agreement), max(self.agreement)
        lines = [
            f"{self.own.source}: {len(self.own.layers)} routers, {self.read} of the text's {self.tokens} tokens read",
            f"The model routes raw tokens, top-{self.top}, by logits. The audit's own, in float64, give its experts",
            f"for {100 * least:.2f} to {100 * greatest:.2f} % of the tokens of a layer.",
        ]
        own, grap = self.own.table(details), self.grap.table(details)
        return "\n".join([*lines, "", "OWN ROUTER", own, "", "GRAP GATES", grap])

    def figure(self, target: Any) -> None:
        """Draw up to three layers, own router above GrAP. target: a path (.png, .svg, .pdf) or a binary stream (SVG)."""
        count = len(self.own.layers)
        layers = []
        for k in sorted(set(np.linspace(0, count - 1, min(count, LAYERS)).round().astype(int).tolist())):
            for report, title in ((self.own, "own router"), (self.grap, "GrAP gates")):
                layers.append(replace(report.layers[k], name=f"{report.layers[k].name}: {title}"))
        replace(self.own, layers=tuple(layers)).figure(target)


def audit_model(
    model: str | Path,
    text: str | Path,
    *,
    experts: int | None = None,
    top: int | None = None,
    center: bool | None = None,
    length: int = 256,
    sequences: int = 64,
    device_map: Any = None,
    capacity_factors: Sequence[float] = (1.0, 1.1, 1.25, 2.0),
    target_loss: float = 0.01,
) -> ModelAudit:
    """Audit a local model's routers on a text, beside GrAP gates on the same hidden states.

    model: folder of a Hugging Face model with Mixtral's kind of routers: configuration, tokenizer, safetensors weights.
    text: UTF-8 file. experts, top: GrAP gates, and experts per token of both; the model's numbers unless given.
    center, capacity_factors, target_loss: as in `audit`. length, sequences, device_map: as in `capture`.

    Raises FileNotFoundError, ValueError (`UnlikeMixtral` for other routers) or TypeError, one sentence each;
    ModuleNotFoundError without torch and transformers.
    """
    config = _config(_folder(model))
    count, own_top = _experts(config), int(config.num_experts_per_tok)
    gates: dict[str, Any] = {
        "experts": count if experts is None else experts,
        "top": own_top if top is None else top,
        "center": center,
        "capacity_factors": capacity_factors,
        "target_loss": target_loss,
    }
    audit(np.eye(2, config.hidden_size), **gates)  # refuses what no hidden states can satisfy, before the model is run
    own_gates = {**gates, "experts": None}
    captured, tokens = capture(model, text, length=length, sequences=sequences, device_map=device_map)
    hidden = {layer.name: layer.hidden for layer in captured}
    grap = audit(hidden, **gates)
    own = [audit({layer.name: layer.hidden}, gates=layer.weight, inner=True, **own_gates) for layer in captured]
    name = Path(model).resolve().name
    return ModelAudit(
        own=replace(own[0], source=name, layers=tuple(report.layers[0] for report in own)),
        grap=replace(grap, source=name),
        agreement=tuple(layer.agreement for layer in captured),
        top=own_top,
        read=captured[0].chosen.shape[0] * captured[0].chosen.shape[1],
        tokens=tokens,
    )


def capture(
    model: str | Path, text: str | Path, *, length: int = 256, sequences: int = 64, device_map: Any = None
) -> tuple[list[Capture], int]:
    """Run the model on a text: what each of its routers saw and did, and the number of the text's tokens.

    The tokens, without special ones, are cut into consecutive sequences of `length` (less where the model or the text is
    shorter), at most `sequences` of them; the rest is not read. The hidden states lie in temporary files without names.
    device_map: as in `from_pretrained` (needs accelerate): "auto" spreads the weights over devices, memory and disk.
    """
    config = _config(_folder(model))
    network, ids, tokens = loaded(model, text, config, length=length, sequences=sequences, device_map=device_map)
    return _run(importlib.import_module("torch"), network, ids, str(model)), tokens


def loaded(
    model: str | Path, text: str | Path, config: Any, *, length: int, sequences: int, device_map: Any = None
) -> tuple[Any, NDArray[np.int64], int]:
    """The network in evaluation mode, the text's token ids (sequences, length), and the number of all its tokens.

    config: of the part of the model that reads text.
    """
    size = int(arguments.integer("length", length, 2))
    most = int(arguments.integer("sequences", sequences, 1))
    folder, content = _folder(model), _text(text)
    transformers: Any = importlib.import_module("transformers")
    with _quiet(transformers):
        tokenizer = _load("tokenizer", folder, transformers.AutoTokenizer, _LOCAL)
        ids = np.asarray(tokenizer(content, add_special_tokens=False)["input_ids"], dtype=np.int64)
        if ids.size < 2:
            raise ValueError(f"--text file {str(text)!r} has {ids.size} tokens but must have at least 2")
        if ids.max() >= config.vocab_size:
            raise ValueError(
                f"the tokenizer of {str(model)!r} gives token {ids.max()} but the model has {config.vocab_size}"
            )
        weights = {
            **_LOCAL,
            "config": _whole(folder),
            "use_safetensors": True,
            "dtype": "auto",
            "output_loading_info": True,
        }
        network = _network(transformers, folder, weights, device_map)
    size = min(size, ids.size, getattr(config, "max_position_embeddings", None) or size)
    count = min(most, ids.size // size)
    return network.eval(), ids[: count * size].reshape(count, size), int(ids.size)


def _network(transformers: Any, folder: Path, weights: dict[str, Any], device_map: Any) -> Any:
    """The model; with a device_map, weights that no memory holds lie in a folder that is there as long as the model is."""
    if device_map is None:
        return _whole_network(transformers, folder, weights)
    disk = tempfile.mkdtemp(prefix="resonance-")
    try:
        given = {**weights, "device_map": device_map, "offload_folder": disk}
        network = _whole_network(transformers, folder, given)
    except BaseException:
        shutil.rmtree(disk, ignore_errors=True)
        raise
    weakref.finalize(network, shutil.rmtree, disk, ignore_errors=True)
    return network


def _whole_network(transformers: Any, folder: Path, weights: dict[str, Any]) -> Any:
    """The model without a head, or, where its weights do not load as such, of the class that its configuration names."""
    named = (getattr(transformers, str(name), None) for name in weights["config"].architectures or ())
    classes = [kind for kind in named if isinstance(kind, type) and issubclass(kind, transformers.PreTrainedModel)]
    problems = []
    for kind in (transformers.AutoModel, *classes):
        try:
            return _filled(folder, kind, weights)
        except ValueError as problem:
            problems.append(problem)
    raise problems[0]


def _filled(folder: Path, kind: Any, weights: dict[str, Any]) -> Any:
    network, info = _load("weights", folder, kind, weights)
    absent = sorted(info["missing_keys"])
    if absent:  # they would be random numbers
        raise ValueError(f"{str(folder)!r} lacks {len(absent)} weights of its model, {absent[0]!r} among them")
    return network


def _run(torch: Any, network: Any, ids: NDArray[np.int64], where: str) -> list[Capture]:
    blocks = [
        (name, block.gate)
        for name, block in network.named_modules()
        if isinstance(getattr(block, "gate", None), torch.nn.Module)
        and hasattr(block, "experts")
        and getattr(getattr(block.gate, "weight", None), "ndim", 0) == 2
    ]
    if not blocks:
        raise UnlikeMixtral(
            f"{where!r} holds a {type(network).__name__} without blocks of Mixtral's kind (gate and experts)"
        )
    seen: dict[str, list[tuple[NDArray[Any], ...]]] = {name: [] for name, _ in blocks}
    states: dict[str, NDArray[Any]] = {}

    def numbers(tensor: Any) -> NDArray[Any]:
        tensor = tensor.detach()
        return (tensor if tensor.dtype == torch.float64 else tensor.float()).numpy(force=True)

    def record(name: str) -> Any:
        def hook(gate: Any, inputs: Any, outputs: Any) -> None:
            if not (isinstance(outputs, tuple) and len(outputs) == 3):
                raise UnlikeMixtral(
                    f"the router {name!r} of {where!r} does not return logits, scores and choice as Mixtral's"
                )
            logits, _, chosen = outputs
            rows = ids.shape[1]
            hidden = numbers(inputs[0]).reshape(rows, -1)
            if len(seen[name]) == len(ids):
                raise UnlikeMixtral(f"the router {name!r} of {where!r} runs more than once on a text, not as Mixtral's")
            if name not in states:
                states[name] = _on_disk((len(ids), *hidden.shape), hidden.dtype)
            states[name][len(seen[name])] = hidden
            chosen = chosen.numpy(force=True).reshape(rows, -1).astype(np.int64)
            seen[name].append((numbers(logits).reshape(rows, -1).copy(), chosen))

        return hook

    hooks = [gate.register_forward_hook(record(name)) for name, gate in blocks]
    device = next((p.device for p in network.parameters() if not p.is_meta), "cpu")
    try:
        with torch.inference_mode():
            for row in ids:
                network(input_ids=torch.from_numpy(row)[None].to(device), use_cache=False)
    finally:
        for hook in hooks:
            hook.remove()
    idle = next((name for name, _ in blocks if name not in states), None)
    if idle is not None:
        raise UnlikeMixtral(f"the router {idle!r} of {where!r} does not run on a text, as Mixtral's does")
    captured = []
    for name, gate in blocks:
        logits, chosen = (np.stack(part) for part in zip(*seen.pop(name)))
        half = gate.weight.dtype not in (torch.float32, torch.float64)
        layer = Capture(name, states[name], logits, chosen, numbers(_weight(gate)).copy())
        _check(layer, 0.05 if half else 1e-3, where)
        captured.append(layer)
    if len({(c.weight.shape, c.chosen.shape) for c in captured}) > 1:
        raise ValueError(f"the routers of {where!r} differ in their numbers of experts, which one audit cannot compare")
    return captured


def _weight(gate: Any) -> Any:
    """The weight, fetched if `device_map` keeps it elsewhere than where it computes."""
    if not gate.weight.is_meta:
        return gate.weight
    with importlib.import_module("accelerate.utils").align_module_device(gate, "cpu"):
        return gate.weight.detach().clone()


def _on_disk(shape: tuple[int, ...], dtype: Any) -> NDArray[Any]:
    """An array in a file without a name, so that memory holds as much of it as there is room for."""
    with tempfile.TemporaryFile() as file:
        return np.memmap(file, dtype, "w+", shape=shape)


def _check(layer: Capture, precision: float, where: str) -> None:
    """Refuse routers that choose by anything but the largest inner products: a bias, groups, a correction."""
    if not (np.isfinite(layer.hidden).all() and np.isfinite(layer.logits).all()):
        raise ValueError(f"the router {layer.name!r} of {where!r} meets or gives numbers that are not finite")
    scale = float(np.abs(layer.logits).max())
    linear = np.abs(layer.hidden @ layer.weight.T - layer.logits).max() <= precision * scale
    taken = np.take_along_axis(layer.logits, layer.chosen, axis=-1).min(axis=-1)
    best = np.sort(layer.logits, axis=-1)[..., -layer.chosen.shape[-1]]
    if not linear or (taken < best - precision * scale).any():
        raise UnlikeMixtral(
            f"the router {layer.name!r} of {where!r} does not take the experts of the largest inner products with its "
            "weight, as Mixtral's does"
        )


# --- reading ----------------------------------------------------------------------------------------------------------


def _folder(model: str | Path) -> Path:
    """The folder, if it holds a configuration and safetensors weights alone will be read."""
    folder = Path(model)
    if not folder.is_dir():
        said = "is a file" if folder.exists() else "does not exist"
        raise FileNotFoundError(f"--model folder {str(model)!r} {said}: give the local folder of a model")
    if not (folder / "config.json").is_file():
        raise ValueError(f"--model folder {str(model)!r} holds no config.json but must hold a Hugging Face model")
    if (folder / "adapter_config.json").exists():
        raise ValueError(f"--model folder {str(model)!r} holds an adapter: merge it into its model first")
    index = folder / "model.safetensors.index.json"
    if (folder / "model.safetensors").is_file():
        return folder
    if not index.is_file():
        raise ValueError(
            f"--model folder {str(model)!r} holds no .safetensors weights, and pickled ones are never read"
        )
    try:
        shards = set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise ValueError(f"{str(index)!r} is not an index of .safetensors weights") from None
    if not all(isinstance(shard, str) and shard.endswith(".safetensors") for shard in shards):
        raise ValueError(f"{str(index)!r} names weights other than .safetensors, and pickled ones are never read")
    outside = sorted(shard for shard in shards if re.search(r"[/\\:]", shard))
    if outside:
        raise ValueError(
            f"{str(index)!r} names {outside[0]!r} but every file of weights must lie in the model's folder"
        )
    return folder


def _config(folder: Path) -> Any:
    """The configuration, if it is that of a model with experts."""
    whole = _whole(folder)
    try:
        config = whole.get_text_config()  # of a model of text and images, the part that reads text
    except ValueError:
        raise ValueError(f"{str(folder)!r} holds a {whole.model_type!r} model of several texts, not one") from None
    if not _experts(config) or not all(getattr(config, name, None) for name in ("num_experts_per_tok", "hidden_size")):
        raise UnlikeMixtral(
            f"{str(folder)!r} holds a {whole.model_type!r} model, whose configuration names no num_local_experts or "
            "num_experts with num_experts_per_tok: it has no Mixture-of-Experts block of Mixtral's kind"
        )
    limits = {**LARGEST, "max_position_embeddings": 2**40, "num_experts_per_tok": _experts(config)}
    for name, high in limits.items():
        value = getattr(config, name, None)
        if value is not None and not (type(value) is int and 1 <= value <= high):
            raise ValueError(f"{name} = {value!r} of {str(folder)!r} must be a whole number in 1..{high}")
    if _experts(config) > 2**16:
        raise ValueError(f"{str(folder)!r} has {_experts(config)} experts but may have {2**16} at most")
    return config


def _whole(folder: Path) -> Any:
    """The configuration as stored, but for the attention: it may name one to be fetched, with code of its own.

    The weights must be loaded with this object. An option beside the file would come after the file is obeyed.
    """
    importlib.import_module("torch")  # transformers without torch has no models
    transformers: Any = importlib.import_module("transformers")
    with _quiet(transformers):
        config = _load("configuration", folder, transformers.AutoConfig, {**_LOCAL, "attn_implementation": "eager"})
    config._attn_implementation = "eager"  # and that of its parts
    return config


def _experts(config: Any) -> int:
    names = ("num_local_experts", "num_experts")
    return next((value for name in names if type(value := getattr(config, name, None)) is int and value > 1), 0)


def _text(file: str | Path) -> str:
    path = Path(file)
    if not path.is_file():
        raise FileNotFoundError(f"--text file {str(file)!r} does not exist: give a UTF-8 text")
    try:
        content = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as problem:
        raise ValueError(f"--text file {str(file)!r} is not UTF-8 (byte {problem.start})") from None
    if not content.strip():
        raise ValueError(f"--text file {str(file)!r} is empty but must hold text for the model to read")
    return content


def _load(what: str, folder: Path, kind: Any, options: dict[str, Any]) -> Any:
    try:
        return kind.from_pretrained(str(folder), **options)
    except ModuleNotFoundError:
        raise
    except Exception as problem:  # whatever the readers of configurations, tokenizers and weights may raise
        reason = " ".join(str(problem).split())[:200]
        raise ValueError(f"the {what} of {str(folder)!r} cannot be read ({reason})") from None


@contextmanager
def _quiet(transformers: Any) -> Iterator[None]:
    """No warnings and progress bars of the loading between the sentences of this program."""
    own, placing = transformers.utils.logging, logging.getLogger("accelerate")
    level, bars, before = own.get_verbosity(), own.is_progress_bar_enabled(), placing.level
    own.set_verbosity_error()
    own.disable_progress_bar()
    placing.setLevel(logging.ERROR)
    try:
        yield
    finally:
        own.set_verbosity(level)
        placing.setLevel(before)
        if bars:
            own.enable_progress_bar()
