"""Tiny random models of every Mixture-of-Experts family in the installed transformers, found by discovery."""

from __future__ import annotations

import copy
import importlib
import inspect
import os
import re
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")
import torch
import transformers

# What a configuration's numbers become, by the first pattern that its name matches; None leaves it as it is.
SIZES: tuple[tuple[str, object], ...] = (
    (r"(^|_)(n_groups?|topk_group|num_expert_group)$", 1),
    (r"^(first_k_dense_replace|num_dense_layers|expert_layer_offset|num_nextn_predict_layers)$", 0),
    (
        r"^(decoder_sparse_step|encoder_sparse_step|expert_layer_period|moe_layer_interval|interleave_moe_layer_step)$",
        1,
    ),
    (r"^(mlp_only_layers)$", []),
    (r"(num_experts_per_tok|num_experts_per_token|top_k_experts|moe_top_?k|^moe_k|zero_expert_num)$", 2),
    (r"(n_shared_experts|num_shared_experts)$", 1),
    (r"^(num_experts|num_local_experts|n_routed_experts|moe_num_experts)$", 4),
    (r"(vocab_size.*|^expert_capacity)$", 64),
    (r"^max_position_embeddings$", 128),
    (r"(num_key_value_heads|num_attention_heads|num_heads|n_heads|attention_heads)$", 4),
    (
        r"^(num_hidden_layers|n_layers|num_layers|encoder_layers|decoder_layers|num_decoder_layers|num_sparse_.*layers)$",
        2,
    ),
    (r"(lora_rank|head_dim|kv_channels|d_kv|rotary_dim)$", 8),
    (r"(intermediate_size.*|ffn_dim|ffn_hidden_size|d_ff)$", 16),
    (r"(hidden_size|d_model|^adapter_in_dim|^adapter_out_dim|^adapter_input_size|hidden_dim|embed_dim)$", 32),
    (r"(sliding_window|index_topk)$", 16),
)
NEEDED = re.compile(r"expert|top_?k$|moe_|^head_dim$|^sliding_window$")  # given a size even where the default is None
SPECIAL = re.compile(r"(_token_id|_token_index|_id)$")

# What one family needs besides.
ROTARY = {"rope_type": "default", "rope_theta": 1e4}
ALSO: dict[str, dict[str, object]] = {
    "doge": {"is_moe": True},
    "dbrx": {"attn_config": {"rope_theta": 1e4, "clip_qkv": 8.0}},
    "ernie4_5_vl_moe": {"rope_parameters": {**ROTARY, "mrope_section": [1, 1, 2]}},
    "glm4v_moe": {"rope_parameters": {**ROTARY, "mrope_section": [1, 1, 2], "partial_rotary_factor": 1.0}},
    "lfm2_moe": {"layer_types": ["conv", "full_attention"]},
    "longcat_flash": {"head_dim": 8},
    "mimo_v2_flash": {"num_key_value_heads": 2},
    "qwen3_omni_moe": {"shared_expert_intermediate_size": 16},
    "zaya": {"num_experts_per_tok": 1},
}


def families() -> dict[str, Path]:
    """Folders of transformers whose modeling file has experts or a mixture among its classes."""
    home = Path(transformers.__file__).parent / "models"
    found = {}
    for path in sorted(home.glob("*/modeling_*.py")):
        text = path.read_text(encoding="utf-8")
        if re.search(r"^class \w*(Experts|MoE|Moe|MoA)\w*\(", text, re.M) and "router" in text:
            found[path.parent.name] = path
    return found


def module_of(path: Path):
    return importlib.import_module(f"transformers.models.{path.parent.name}.{path.stem}")


def models_of(path: Path) -> list[type]:
    """Model classes of a family, those that read text alone first."""
    module = module_of(path)
    kinds = [
        kind
        for kind in vars(module).values()
        if inspect.isclass(kind)
        and issubclass(kind, transformers.PreTrainedModel)
        and kind.__module__ == module.__name__
        and getattr(kind, "config_class", None) is not None
        and not kind.__name__.endswith("PreTrainedModel")
    ]
    order = ("ForCausalLM", "TextModel", "Model", "ForConditionalGeneration")
    return sorted(kinds, key=lambda kind: next((k for k, end in enumerate(order) if kind.__name__.endswith(end)), 9))


def small(kind: type) -> dict[str, object]:
    """Keyword arguments that make a configuration of that class tiny."""
    whole = kind()
    given: dict[str, object] = {}
    fields = whole.to_dict()
    for name, value in fields.items():
        if name in whole.sub_configs:
            part = getattr(whole, name, None)
            sub = type(part) if part is not None else whole.sub_configs[name]
            if hasattr(sub, "to_dict"):
                given[name] = small(sub)
            continue
        if name.endswith("mlp_layer_types") and not name.startswith("mtp"):
            kinds = sorted({kind for kind in value or () if kind != "dense"}) or ["sparse"]
            given[name] = [kinds[0], kinds[-1]]
        if name == "enable_moe_block":
            given[name] = True
        if isinstance(value, dict) and "mrope_section" in str(value):
            given[name] = {**value, "mrope_section": [1, 1, 2]}
        if isinstance(value, (bool, str, dict, float)) or name in given or value == 0:
            continue
        if name == "qk_head_dim" or (name == "head_dim" and "qk_rope_head_dim" in fields):
            continue  # derived from its parts
        if SPECIAL.search(name) and isinstance(value, int) and value > 60:
            given[name] = 1
            continue
        new = next((new for pattern, new in SIZES if re.search(pattern, name)), None)
        if new is not None and (value is None or isinstance(value, (int, list))):
            if isinstance(value, list) and not isinstance(new, list):
                new = [new] * len(value)
            if value is not None or NEEDED.search(name):
                given[name] = new
    return given


def configuration(kind: type, family: str):
    """A tiny configuration of that class, with what its family needs."""
    given, sub = small(kind), getattr(kind, "sub_configs", {})
    for name, value in copy.deepcopy(ALSO.get(family, {})).items():  # configurations write into what they are given
        if isinstance(value, dict) and name in sub:
            given[name] = {**given.get(name, {}), **value}
        elif name in kind().to_dict() or not sub:
            given[name] = value
        elif "text_config" in given:
            given["text_config"] = {**given["text_config"], name: value}
    return kind(**given)


def build(kind: type, family: str) -> torch.nn.Module:
    """A tiny random model, in evaluation mode."""
    torch.manual_seed(0)
    model: torch.nn.Module = kind(configuration(kind.config_class, family)).eval()
    for name, p in model.named_parameters():  # some families leave their experts as the memory was
        if "experts" in name and p.ndim > 2:
            torch.nn.init.normal_(p, std=0.02)
    for name, table in model.named_buffers():
        if name.endswith("tid2eid"):  # the experts of each token by a table, all 0 until it is loaded
            table.copy_(torch.rand(len(table), 4).argsort(-1)[:, : table.shape[1]])
        elif name.endswith("balancing_biases"):  # let some tokens skip all experts
            table.zero_()
    return model


def inputs(model: torch.nn.Module, embedded: bool = False) -> dict[str, torch.Tensor]:
    """Two samples of 12 tokens, or of 12 vectors, or what a model of images reads."""
    config, parameters = model.config, inspect.signature(model.forward).parameters
    generator = torch.Generator().manual_seed(1)
    if "input_ids" in parameters:
        given = {"input_ids": torch.randint(2, 60, (2, 12), generator=generator)}
        if "decoder_input_ids" in parameters:
            given["decoder_input_ids"] = torch.randint(2, 60, (2, 12), generator=generator)
        else:
            given["use_cache"] = False
        if embedded:
            del given["input_ids"]
            given["inputs_embeds"] = torch.randn(2, 12, config.hidden_size, generator=generator)
        return given
    if "grid_thw" in parameters:
        size = config.num_channels * config.patch_size**2
        return {"pixel_values": torch.randn(16, size, generator=generator), "grid_thw": torch.tensor([[1, 4, 4]])}
    raise ValueError(f"{type(model).__name__} reads neither text nor a grid of patches")


def hidden(model: torch.nn.Module, given: dict[str, torch.Tensor]) -> torch.Tensor:
    """What the model gives first."""
    return model(**given)[0]
