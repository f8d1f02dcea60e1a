"""Router logs: every layout on a file made as its program makes it, bad input, padding, repeats, and the counting."""

import base64
import collections
import csv
import io
import json
import os
import struct
import tracemalloc
import zipfile
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from resonance_theory import logs
from resonance_theory.logs import RoutingLog, counting, repeats, scoring
from resonance_theory.logs.files import archive
from resonance_theory.logs.files.content import Coded, decode

ROOT = Path(__file__).resolve().parents[1]

torch = pytest.importorskip("torch")
from safetensors.numpy import save_file  # noqa: E402
from safetensors.torch import save_file as save_torch  # noqa: E402


def made(tokens=200, layers=3, k=2, experts=8, seed=0, dtype=np.int64):
    """Choices whose ids differ within a token, drawn by another way than the package's."""
    rng = np.random.default_rng(seed)
    return np.array([[rng.permutation(experts)[:k] for _ in range(layers)] for _ in range(tokens)]).astype(dtype)


def counted(choices, experts):
    """Counts (layers, experts), one by one."""
    found = [collections.Counter(int(e) for row in choices[:, layer] for e in row) for layer in range(choices.shape[1])]
    return np.array([[c[e] for e in range(experts)] for c in found])


def same(log, choices, weights=None):
    assert np.array_equal(np.asarray(log.choices), choices)
    if weights is not None:
        assert np.allclose(np.asarray(log.weights), weights, rtol=1e-6)


# --- the form ---------------------------------------------------------------------------------------------------------


def test_loads_are_the_counts_of_blocks():
    choices = made(101)
    log = RoutingLog(experts=8, choices=choices)
    got = log.loads(10)
    assert got.shape == (10, 3, 8)
    for b in range(10):
        assert np.array_equal(got[b], counted(choices[10 * b : 10 * b + 10], 8))
    assert np.array_equal(log.loads(10, layer=1), got[:, 1])
    assert np.array_equal(log.loads(101)[0], counted(choices, 8))
    assert log.loads(102).shape == (0, 3, 8)


@pytest.mark.parametrize("kind", ["u1", "i1", "<i2", ">i2", ">i4", "<u4", ">i8", "u8"])
@pytest.mark.parametrize("order", ["C", "F", "strided", "layers first"])
def test_every_whole_number_type_and_layout(kind, order):
    choices = made(60)
    array = choices.astype(kind)
    if order == "F":
        array = np.asfortranarray(array)
    elif order == "strided":
        array = np.repeat(array, 2, axis=0)[::2]
    elif order == "layers first":
        array = np.ascontiguousarray(array.swapaxes(0, 1)).swapaxes(0, 1)
    assert np.array_equal(RoutingLog(experts=8, choices=array).loads(60)[0], counted(choices, 8))


@pytest.mark.parametrize("compiled", [True, False])
@pytest.mark.parametrize(("block", "size"), [(1, 7), (5, 7), (64, 10), (1000, 50), (3, 1000)])
def test_the_two_ways_of_counting_agree(compiled, block, size, monkeypatch):
    if compiled:
        pytest.importorskip("numba")
        monkeypatch.setattr(counting, "_COMPILE", 0)
    monkeypatch.setattr(counting, "BLOCK", size)
    choices = made(301, layers=2, k=3, dtype=np.int16)
    choices[5:9] = -1
    got = RoutingLog(experts=8, choices=choices).loads(block)
    for b in range(301 // block):
        assert np.array_equal(got[b], counted(choices[b * block : (b + 1) * block], 8))


@pytest.mark.parametrize("many", [True, False])
def test_ids_outside_count_nowhere(many):
    into = np.zeros((2, 2, 3), np.int64)
    counting.count(np.array([[[0], [3]], [[-1], [2]], [[-5], [1]]], np.int16), 1, 2, into, many)
    assert into.tolist() == [[[1, 0, 0], [0, 0, 0]], [[0, 0, 0], [0, 1, 1]]]


@given(st.integers(1, 40), st.integers(1, 3), st.integers(1, 4), st.integers(1, 12), st.randoms(use_true_random=False))
@settings(max_examples=60, deadline=None)
def test_any_log_keeps_its_choices(tokens, layers, k, block, random):
    rng = np.random.default_rng(random.getrandbits(32))
    choices = made(max(tokens, k), layers, k, 5, seed=random.getrandbits(16))
    choices[rng.random(choices.shape[:2]) < 0.2] = -1
    if (choices < 0).all():
        return
    log = RoutingLog(experts=5, choices=choices)
    got = log.loads(block)
    full = len(choices) // block * block
    assert got.sum() == (choices[:full] >= 0).sum()
    assert np.array_equal(got.sum(axis=0), counted(choices[:full], 5))


GOOD = {"experts": 8, "choices": made(20)}
COUNTS = {"experts": 4, "counts": np.full((2, 3, 4), 5), "tokens": [10, 10]}


@pytest.mark.parametrize(
    ("base", "change", "message"),
    [
        (GOOD, {"counts": COUNTS["counts"]}, "choices or counts must be given, one of the two"),
        (GOOD, {"experts": 1}, "experts = 1 must be a whole number between 2"),
        (GOOD, {"experts": 7.0}, "experts = 7.0 must be a whole number"),
        (GOOD, {"experts": 4}, r"layer 'layer.\d', must be -1 to 3"),
        (GOOD, {"choices": GOOD["choices"] - 2}, "must be -1 to 7"),
        (GOOD, {"choices": GOOD["choices"][0]}, r"shape \(3, 2\) but must have the axes \(tokens, layers, k\)"),
        (GOOD, {"choices": GOOD["choices"] * 1.0}, "dtype float64 but must hold whole numbers"),
        (GOOD, {"choices": np.ma.masked_less(GOOD["choices"], 1)}, "masked array"),
        (GOOD, {"choices": [[[1, 2]], [[3]]]}, "list that is no array"),
        (GOOD, {"choices": np.zeros((0, 3, 2), int)}, "each must be at least 1"),
        (GOOD, {"choices": np.zeros((5, 1, 9), int)}, "k = 9 experts per token but k must be at most experts = 8"),
        (GOOD, {"choices": made(1)}, "1 tokens of k = 2 experts, but needs at least k tokens"),
        (GOOD, {"choices": np.full((4, 2, 2), -1)}, "all padding"),
        (GOOD, {"tokens": [20]}, "tokens goes with counts"),
        (GOOD, {"weights": np.ones((20, 3))}, r"weights has shape \(20, 3\)"),
        (GOOD, {"weights": np.ones((20, 3, 1))}, r"must have that of choices, \(20, 3, 2\)"),
        (GOOD, {"weights": np.full((20, 3, 2), np.nan)}, r"weights\[0, 0, 0\] = nan, layer 'layer.0', must be a finite"),
        (GOOD, {"weights": np.full((20, 3, 2), -0.5)}, "must be a finite number of at least 0"),
        (GOOD, {"weights": np.array([["a"]])}, "weights has dtype <U1 but must hold real numbers"),
        (GOOD, {"documents": np.zeros(19, int)}, "documents has 19 entries but must have one for each of the 20"),
        (GOOD, {"documents": np.arange(20) % 2}, r"documents\[2\] = 0 comes back after another document"),
        (GOOD, {"documents": np.zeros(20)}, "documents has dtype float64"),
        (GOOD, {"layers": ("a", "b", "a")}, "layers names 'a' twice"),
        (GOOD, {"layers": ("a", "b")}, "layers names 2 layers but must name the 3"),
        (COUNTS, {"tokens": None}, "tokens, the number of tokens of each step, must be given with counts"),
        (COUNTS, {"tokens": [10]}, r"tokens has shape \(1,\)"),
        (COUNTS, {"tokens": [10, 0]}, r"tokens\[1\] = 0 must be a whole number between 1 and"),
        (COUNTS, {"tokens": [10, 4]}, r"counts\[1, 0, 0\] = 5, layer 'layer.0', must be at most the tokens of its step"),
        (COUNTS, {"counts": -COUNTS["counts"]}, "must be at least 0"),
        (COUNTS, {"counts": COUNTS["counts"] + 0.5}, r"counts\[0, 0, 0\] = 5.5, layer 'layer.0', must be a whole number"),
        (COUNTS, {"counts": COUNTS["counts"] * np.nan}, "must be a whole number"),
        (COUNTS, {"counts": COUNTS["counts"] * 0}, "0 throughout"),
        (COUNTS, {"counts": np.zeros((0, 3, 4), int), "tokens": []}, "each must be at least 1"),
        (COUNTS, {"experts": 5}, "4 experts, but experts = 5"),
        (COUNTS, {"documents": [0]}, "documents goes with choices"),
    ],
)  # fmt: skip
def test_what_a_log_refuses(base, change, message):
    with pytest.raises((ValueError, TypeError), match=message):
        RoutingLog(**(base | change))


def test_tokens_of_counts():
    counts = np.array([[[5, 0, 1], [2, 2, 2]], [[3, 3, 2], [4, 4, 0]]])
    assert logs.read({"counts": counts}, top=2).tokens.tolist() == [5, 4]  # no expert counts more than the tokens
    assert logs.read({"counts": counts}).tokens.tolist() == [6, 8]
    assert logs.read({"counts": counts, "tokens_per_step": np.array([7, 9])}).tokens.tolist() == [7, 9]
    assert logs.read({"counts": counts}, tokens=10).tokens.tolist() == [10, 10]


def test_top_of_counts_and_size():
    log = RoutingLog(**COUNTS)
    assert (log.top, len(log)) == (2, 20)
    assert "2 steps of 20 tokens, 3 layers, 4 experts, top-2" in repr(log)
    with pytest.raises(ValueError, match=r"log.counts"):
        log.loads(2)


# --- each layout ------------------------------------------------------------------------------------------------------


def test_npy_stays_mapped(tmp_path):
    choices = made(300, dtype=np.int16)
    np.save(tmp_path / "choices.npy", choices)
    log = logs.read(tmp_path / "choices.npy", experts=8)
    same(log, choices)
    assert isinstance(log.choices, np.memmap)
    assert logs.recognise(tmp_path / "choices.npy") == "choices"


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_npz_with_weights_and_documents(tmp_path, save):
    choices = made(50)
    weights = np.random.default_rng(1).random(choices.shape).astype(np.float32)
    save(
        tmp_path / "log.npz",
        topk_ids=np.asfortranarray(choices.astype(">i4")),
        topk_weights=weights,
        lengths=np.array([20, 30]),
        num_experts=np.array(16),
    )
    log = logs.read(tmp_path / "log.npz")
    same(log, choices, weights)
    assert log.experts == 16
    assert np.array_equal(log.documents, [0] * 20 + [1] * 30)
    assert isinstance(log.choices, np.memmap) == (save is np.savez)


def test_parts_of_an_archive(tmp_path):
    a, b = made(40), made(30, seed=1)
    np.savez(
        tmp_path / "x.npz",
        law_experts=a.astype(np.uint8), law_weights_e4=np.full(a.shape, 2500, np.uint16), law_lengths=np.int32([15, 25]),
        news_experts=b.astype(np.uint8), news_weights_e4=np.full(b.shape, 5000, np.uint16), news_lengths=np.int32([30]),
    )  # fmt: skip
    log = logs.read(tmp_path / "x.npz", experts=8)
    same(log, np.concatenate([a, b]), np.concatenate([np.full(a.shape, 0.25), np.full(b.shape, 0.5)]))
    assert np.array_equal(np.bincount(log.documents), [15, 25, 30])
    assert "law 40, news 30" in log.notes[0]
    same(logs.read(tmp_path / "x.npz", experts=8, parts="news"), b)
    with pytest.raises(ValueError, match="parts = 'sport' must be one of 'law', 'news'"):
        logs.read(tmp_path / "x.npz", parts="sport")


def test_safetensors_layer_by_layer(tmp_path):
    choices = made(50)
    arrays = {f"model.layers.{10 * k}.topk_ids": np.ascontiguousarray(choices[:, k]) for k in range(3)}
    save_file(arrays, tmp_path / "log.safetensors", {"num_experts": "12"})
    log = logs.read(tmp_path / "log.safetensors")
    same(log, choices)
    assert log.layers == ("layer.0", "layer.10", "layer.20")
    assert log.experts == 12


def test_sharded_safetensors(tmp_path):
    choices = made(50)
    names = {}
    for k in range(3):
        file = f"part-{k}.safetensors"
        save_file({f"layer.{k}.topk_ids": np.ascontiguousarray(choices[:, k])}, tmp_path / file)
        names[f"layer.{k}.topk_ids"] = file
    index = tmp_path / "log.safetensors.index.json"
    index.write_text(json.dumps({"metadata": {}, "weight_map": names}))
    same(logs.read(index), choices)
    index.write_text(json.dumps({"weight_map": {"a": "../part-0.safetensors"}}))
    with pytest.raises(ValueError, match=r"must name .safetensors files beside it"):
        logs.read(index)
    index.write_text(json.dumps({"weight_map": {"a": "part-7.safetensors"}}))
    with pytest.raises(FileNotFoundError, match=r"'part-7.safetensors', which does not exist"):
        logs.read(index)
    index.write_text(json.dumps({"weight_map": {"b": "part-0.safetensors"}}))
    with pytest.raises(ValueError, match=r"says that 'part-0.safetensors' holds 'b' but it does not"):
        logs.read(index)


def test_choices_and_counts_are_told_apart():
    choices, load = made(300, layers=2), np.random.default_rng(0).multinomial(200, np.full(8, 1 / 8), (30, 2))
    assert logs.recognise(choices) == "choices"
    assert logs.recognise(load) == "counts"
    assert logs.read(choices).experts == 8
    assert logs.read(load).counts.shape == (30, 2, 8)
    assert logs.recognise(made(300, layers=1, k=1)) == "choices"
    either = np.array([[[0, 1]], [[1, 0]], [[0, 1]]])  # two choices, or one token on either of two experts
    assert logs.recognise(either) is None
    with pytest.raises(ValueError, match=r"is no routing log .* name its layout, one of"):
        logs.read(either)
    assert logs.read(either, layout="choices").choices is not None
    assert logs.read(either, layout="counts").counts is not None
    assert logs.read(load, experts=8).counts is not None  # the last axis is the experts'
    each = made(30, layers=2, k=8)  # without experts: every token took all eight, in another order
    assert logs.recognise(each) is None
    assert logs.read(each, experts=8).counts is not None
    with pytest.raises(ValueError, match="counts has 8 experts but experts = 9"):
        logs.read({"counts": load}, experts=9)


def test_hidden_states_are_no_routing_log(tmp_path):
    from resonance_theory import audit

    assert logs.recognise(audit.example()) is None
    assert logs.recognise(np.zeros((4, 16, 8))) is None
    assert logs.recognise({"layer.0": np.zeros((4, 16, 8)), "token_ids": np.zeros((4, 16), int)}) is None
    (tmp_path / "x.bin").write_bytes(b"0")
    assert logs.recognise(tmp_path / "x.bin") is None
    with pytest.raises(ValueError, match=r"must be a file ending in .npy"):
        logs.read(tmp_path / "x.bin")
    for missing in (tmp_path / "none.npz", ""):
        with pytest.raises(FileNotFoundError, match="does not exist"):
            logs.recognise(missing)
    assert logs.recognise(tmp_path) is None  # a folder without ESFT's files


ROWS = [
    (doc, layer, token, slot)
    for doc, length in enumerate((30, 20))
    for token in range(length)
    for layer in range(3)
    for slot in range(2)
]


def rows_of(choices, weights):
    start = (0, 30)
    for doc, layer, token, slot in ROWS:
        at = start[doc] + token
        yield {
            "request_id": f"r{1 - doc}",  # not in the order of the text
            "layer": layer,
            "token_idx": token,
            "expert_idx": int(choices[at, layer, slot]),
            "gate_weight": float(weights[at, layer, slot]),
        }


@pytest.mark.parametrize("kind", ["csv", "tsv", "json", "jsonl", "columns", "lists", "parquet"])
def test_rows(tmp_path, kind):
    choices = made(50)
    weights = np.random.default_rng(2).random(choices.shape)
    rows = list(rows_of(choices, weights))
    path = tmp_path / f"log.{ {'columns': 'json', 'lists': 'jsonl'}.get(kind, kind) }"
    if kind in ("csv", "tsv"):
        with path.open("w", newline="") as file:
            writer = csv.DictWriter(file, rows[0], delimiter="," if kind == "csv" else "\t")
            writer.writeheader()
            writer.writerows(rows)
    elif kind == "json":
        path.write_text(json.dumps(rows))
    elif kind == "columns":
        path.write_text(json.dumps({key: [row[key] for row in rows] for key in rows[0]}))
    elif kind == "jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows) + "\n")
    elif kind == "lists":
        pairs = [
            rows[k] | {n: [rows[k][n], rows[k + 1][n]] for n in ("expert_idx", "gate_weight")} for k in range(0, 300, 2)
        ]
        path.write_text("".join(json.dumps(row) + "\n" for row in pairs))
    else:
        arrow = pytest.importorskip("pyarrow")
        from pyarrow import parquet

        parquet.write_table(arrow.Table.from_pylist(rows), path)
    assert logs.recognise(path) == "rows"
    log = logs.read(path, experts=8)
    same(log, choices, weights)
    assert np.array_equal(log.documents, [0] * 30 + [1] * 20)
    assert log.layers == ("layer.0", "layer.1", "layer.2")


def line(row):
    return ",".join(map(str, row)) + "\n"


def test_rows_in_any_order_and_with_gaps(tmp_path):
    choices = made(40)
    rows = [(t, m, int(choices[t, m, s])) for t in range(40) for m in range(3) for s in range(2)]
    order = np.random.default_rng(0).permutation(len(rows))
    (tmp_path / "log.csv").write_text("token,layer,expert\n" + "".join(line(rows[k]) for k in order))
    log = logs.read(tmp_path / "log.csv")
    assert np.array_equal(np.sort(log.choices, axis=2), np.sort(choices, axis=2))
    (tmp_path / "log.csv").write_text("token,layer,expert\n0,b,1\n0,c,0\n0,a,2\n1,a,1\n1,b,0\n1,c,2\n")
    log = logs.read(tmp_path / "log.csv")
    assert log.layers == ("b", "c", "a")  # the order in which they appear
    assert log.choices[:, :, 0].tolist() == [[1, 0, 2], [0, 2, 1]]
    (tmp_path / "log.csv").write_text("token,layer,expert\n" + "".join(line(row) for row in rows[1:]))
    assert logs.read(tmp_path / "log.csv").choices[0, 0].tolist() == [choices[0, 0, 1], -1]
    (tmp_path / "log.csv").write_text("token,layer,expert\n" + "".join(line(row) for row in rows + rows))
    with pytest.raises(ValueError, match=r"token 0 names expert \d twice in layer 'layer.0': give a document column"):
        logs.read(tmp_path / "log.csv")


def test_rows_of_counts(tmp_path):
    load = np.random.default_rng(0).multinomial(100, np.full(4, 0.25), (5, 2))
    lines = [f"{s},{m},{e},{load[s, m, e]}" for s in range(5) for m in range(2) for e in range(4)]
    (tmp_path / "c.csv").write_text("step,layer,expert,count\n" + "\n".join(lines))
    log = logs.read(tmp_path / "c.csv", top=2)
    assert np.array_equal(log.counts, load)
    assert np.array_equal(log.tokens, np.full(5, 50))
    (tmp_path / "c.jsonl").write_text(
        "".join(
            json.dumps({"iteration": s, "layer": m, "tokens_per_expert": load[s, m].tolist()}) + "\n"
            for s in range(5)
            for m in range(2)
        )
    )
    assert np.array_equal(logs.read(tmp_path / "c.jsonl").counts, load)


# SGLang's expert distribution recorder, after python/sglang/srt/eplb/expert_distribution.py


def test_sglang_stat(tmp_path):
    load = np.random.default_rng(0).multinomial(600, np.full(8, 1 / 8), (4, 3)).astype(np.int32)
    load[:, 0] = 0  # a dense layer
    load[3] = 0  # a slot of the buffer that was not reached
    data = {"rank": 0, "logical_count": torch.from_numpy(load), "average_utilization_rate_over_window": None}
    torch.save(data, tmp_path / "expert_distribution_recorder_1.pt")
    assert logs.recognise(tmp_path / "expert_distribution_recorder_1.pt") == "sglang-recorder"
    log = logs.read(tmp_path / "expert_distribution_recorder_1.pt", top=6)
    assert np.array_equal(log.counts, load[:3, 1:])
    assert np.array_equal(log.tokens, [100 if load[s].max() <= 100 else load[s].max() for s in range(3)])
    assert log.layers == ("layer.1", "layer.2")
    assert log.notes == (
        "1 layers counted nothing and are left out: layer.0.",
        "1 of 4 steps counted nothing and are left out.",
    )


def records(choices, per):
    return [
        {
            "forward_pass_id": at,
            "rank": 0,
            "gatherer_key": "primary",
            "input_ids": list(range(per)),
            "topk_ids_of_layer": torch.from_numpy(
                choices[at * per : (at + 1) * per].swapaxes(0, 1).astype(np.int32).copy()
            ),
        }
        for at in range(len(choices) // per)
    ]


def test_sglang_per_token_maps_physical_experts(tmp_path):
    physical = made(60, experts=10)
    physical[:, 0] = -1  # a dense layer
    physical[50:] = -1  # padding
    physical[7, 1, 1] = -1  # one choice that was not taken
    table = np.array([[0, 1, 2, 3, 4, 5, 6, 7, 0, 3]] * 3)
    data = {"records": records(physical, 20), "last_physical_to_logical_map": torch.from_numpy(table)}
    torch.save(data, tmp_path / "r.pt")
    log = logs.read(tmp_path / "r.pt")
    wanted = [
        [[int(table[m, physical[t, m, s]]) if physical[t, m, s] >= 0 else -1 for s in range(2)] for m in (1, 2)]
        for t in range(50)
    ]
    same(log, wanted)
    assert log.experts == 8
    assert log.layers == ("layer.1", "layer.2")
    assert any("16.7% of 60 tokens are padding" in note for note in log.notes)
    assert any("10 physical experts are 8 logical ones" in note for note in log.notes)
    data["records"][1]["topk_ids_of_layer"][1, 0, 0] = 10
    torch.save(data, tmp_path / "r.pt")
    with pytest.raises(ValueError, match="topk_ids_of_layer holds 10 in layer 1, token 20, but must hold -1 to 9"):
        logs.read(tmp_path / "r.pt")
    torch.save({"records": [], "last_physical_to_logical_map": torch.from_numpy(table)}, tmp_path / "r.pt")
    with pytest.raises(ValueError, match="no records at all"):
        logs.read(tmp_path / "r.pt")


def test_sglang_per_pass_adds_replicas(tmp_path):
    physical = np.random.default_rng(0).integers(0, 9, (4, 2, 6))
    table = np.array([[0, 1, 2, 3, 0, 0], [0, 1, 2, 3, 1, 2]])
    passes = [
        {"forward_pass_id": k, "rank": 0, "global_physical_count": torch.from_numpy(physical[k])} for k in range(4)
    ]
    torch.save({"records": passes, "last_physical_to_logical_map": torch.from_numpy(table)}, tmp_path / "r.pt")
    wanted = np.zeros((4, 2, 4), int)
    for step, layer, expert in np.ndindex(physical.shape):
        wanted[step, layer, table[layer, expert]] += physical[step, layer, expert]
    assert np.array_equal(logs.read(tmp_path / "r.pt").counts, wanted)


@pytest.mark.parametrize("place", ["meta_info", "choices"])
def test_sglang_returned_experts(tmp_path, place):
    choices = made(50)
    texts = [base64.b64encode(part.astype(np.int32).tobytes()).decode() for part in (choices[:30], choices[30:])]
    if place == "meta_info":
        rows = [{"text": "...", "meta_info": {"id": "a", "prompt_tokens": 9, "routed_experts": t}} for t in texts]
        path = tmp_path / "out.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    else:
        path = tmp_path / "out.json"
        path.write_text(
            json.dumps({"choices": [{"index": k, "sgl_ext": {"routed_experts": t}} for k, t in enumerate(texts)]})
        )
    assert logs.recognise(path) == "sglang-routed"
    log = logs.read(path, layers=3, top=2, experts=8)
    same(log, choices)
    assert np.array_equal(np.bincount(log.documents), [30, 20])
    with pytest.raises(ValueError, match="give layers= and top="):
        logs.read(path)
    with pytest.raises(ValueError, match="720 bytes but must have a multiple of 4 x 7 layers x 2"):
        logs.read(path, layers=7, top=2)


@pytest.mark.parametrize("form", ["lists", "npy", "shaped"])
def test_vllm_returned_experts(tmp_path, form):
    choices = made(50)
    choices[:10] = -1  # a prefix that was cached

    def encoded(part):
        if form == "lists":
            return part.tolist()
        if form == "npy":
            file = io.BytesIO()
            np.save(file, part.astype(np.int16))
            return base64.b64encode(file.getvalue()).decode()
        data = base64.b64encode(part.astype("<i2").tobytes()).decode()
        return {"data": data, "shape": list(part.shape), "dtype": "int16"}

    path = tmp_path / "out.jsonl"
    rows = [{"choices": [{"index": 0, "routed_experts": encoded(part)}]} for part in (choices[:30], choices[30:])]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert logs.recognise(path) == "vllm-routed"
    log = logs.read(path, experts=8)
    same(log, choices[10:])
    assert np.array_equal(np.bincount(log.documents), [20, 20])
    assert "20.0% of 50 tokens are padding" in log.notes[1]


def test_eplb(tmp_path):
    weight = torch.tensor(
        [[90, 132, 40, 61, 104, 165, 39, 4, 73, 56, 183, 86], [20, 107, 104, 64, 19, 197, 187, 157, 172, 86, 16, 27]]
    )
    torch.save({"weight": weight}, tmp_path / "w.pt")
    assert logs.recognise(tmp_path / "w.pt") == "eplb"
    log = logs.read(tmp_path / "w.pt", top=2)
    assert np.array_equal(log.counts, weight.numpy()[None])
    share = weight.double() / weight.double().sum(dim=1, keepdim=True)
    np.save(tmp_path / "weight.npy", share.numpy())
    log = logs.read(tmp_path / "weight.npy")
    assert np.array_equal(log.counts.sum(axis=2), [[10**6, 10**6]])
    assert np.abs(log.counts[0] / 1e6 - share.numpy()).max() < 1e-6
    np.save(tmp_path / "weight.npy", -share.numpy())
    with pytest.raises(ValueError, match="at least 0"):
        logs.read(tmp_path / "weight.npy")


def test_megatron_lines(tmp_path):
    """As megatron/training/activation_logging.py writes them: layers, then MTP layers, of each iteration."""
    load = np.random.default_rng(0).multinomial(64, np.full(4, 0.25), (3, 2, 3))  # iterations, micro-batches, layers
    lines = []
    for it in range(3):
        for layer in range(2):
            tpe = [load[it, batch, layer].tolist() for batch in range(2)]
            lines.append({"iter": 100 * it, "block": "decoder", "layer": 3 + layer, "tpe": tpe})
        tpe = [load[it, batch, 2].tolist() for batch in range(2)]
        lines.append({"iter": 100 * it, "block": "mtp", "mtp_idx": 0, "layer": 1, "tpe": tpe})
    path = tmp_path / "rank3.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert logs.recognise(path) == "megatron"
    log = logs.read(path, top=2)
    assert np.array_equal(log.counts, load.reshape(6, 3, 4))
    assert log.layers == ("layer.3", "layer.4", "mtp.0.1")
    path.write_text("".join(json.dumps(line) + "\n" for line in lines[:-1]))
    with pytest.raises(ValueError, match=r"layer 'mtp.0.1' lacks iteration 200, micro-batch 0"):
        logs.read(path)
    path.write_text("".join(json.dumps(line) + "\n" for line in lines + lines))
    with pytest.raises(ValueError, match=r"'layer.3' has iteration 0 twice"):
        logs.read(path)


def test_megatron_counters():
    load = np.random.default_rng(0).multinomial(64, np.full(4, 0.25), (3,))
    names = [f"decoder.layers.{k}.mlp.router.local_tokens_per_expert" for k in (0, 2, 10)]
    log = logs.read({name: torch.from_numpy(row).float() for name, row in zip(names, load)}, top=1)
    assert np.array_equal(log.counts, load[None])
    assert log.layers == ("layer.0", "layer.2", "layer.10")


def test_esft(tmp_path):
    """As DeepSeek's ESFT writes them: a line a document, all ids by tabs, two tabs, all weights rounded to 4 digits."""
    choices = made(50)
    weights = np.random.default_rng(3).random(choices.shape).round(4)
    for layer in range(3):
        with (tmp_path / f"expert_weights_{layer + 1}.txt").open("w") as file:
            for part in (slice(0, 30), slice(30, 50)):
                ids = "\t".join(str(int(i)) for i in choices[part, layer].ravel())
                file.write(ids + "\t\t" + "\t".join(str(w) for w in weights[part, layer].ravel()) + "\n")
    assert logs.recognise(tmp_path) == "esft"
    log = logs.read(tmp_path, top=2)
    same(log, choices, weights)
    assert log.layers == ("layer.1", "layer.2", "layer.3")
    assert np.array_equal(np.bincount(log.documents), [30, 20])
    with pytest.raises(ValueError, match="give top="):
        logs.read(tmp_path)
    with pytest.raises(ValueError, match="60 ids and 60 weights but must have as many of both, a multiple of top = 7"):
        logs.read(tmp_path, top=7)
    with (tmp_path / "expert_weights_2.txt").open("a") as file:
        file.write("1\t2\t\t0.5\t0.5\n")
    with pytest.raises(ValueError, match="layer 2 has 3 documents of 51 tokens but the first has 2 of 50"):
        logs.read(tmp_path, top=2)


# --- logits -----------------------------------------------------------------------------------------------------------


def reference(logits, top, score, bias, n_group, topk_group):
    """One token after the other, with torch's own softmax, sigmoid and sorts."""
    ids, weights = [], []
    for row in torch.from_numpy(logits).double():
        value = torch.softmax(row, 0) if score == "softmax" else torch.sigmoid(row)
        key = value if bias is None else value + torch.from_numpy(bias).double()
        if n_group:
            parts = key.reshape(n_group, -1)
            best = parts.sort(dim=1, descending=True).values[:, : 1 if score == "softmax" else 2].sum(dim=1)
            stay = best.sort(descending=True, stable=True).indices[:topk_group].tolist()
            mask = torch.full_like(parts, -torch.inf)
            mask[stay] = 0
            key = (parts + mask).reshape(-1)
        order = key.sort(descending=True, stable=True).indices[:top]
        ids.append(order.tolist())
        weights.append(value[order].tolist())
    return np.array(ids), np.array(weights)


BIAS = np.linspace(0.4, -0.4, 16)


@pytest.mark.parametrize(
    ("name", "score", "bias", "groups"),
    [
        ("softmax", "softmax", None, (None, None)),
        ("sigmoid", "sigmoid", None, (None, None)),
        ("sigmoid+bias", "sigmoid", BIAS, (None, None)),
        ("group-limited", "sigmoid", BIAS, (4, 2)),
        ("group-limited", "sigmoid", None, (4, 2)),
        ("softmax", "softmax", None, (4, 2)),
    ],
)
def test_scoring(name, score, bias, groups):
    logits = np.random.default_rng(0).normal(size=(300, 16)).round(1)  # with ties
    ids, weights = logs.choose(logits, 4, name, bias=bias, n_group=groups[0], topk_group=groups[1])
    wanted = reference(logits, 4, score, bias, *groups)
    assert np.array_equal(ids, wanted[0])
    assert np.allclose(weights, wanted[1], rtol=1e-12)
    if bias is not None:  # the bias, and the groups, matter: the nearest false routers differ
        assert not np.array_equal(ids, logs.choose(logits, 4, "sigmoid")[0])
    if groups[0]:
        assert not np.array_equal(ids, reference(logits, 4, score, bias, None, None)[0])


def test_extreme_logits():
    ids, weights = logs.choose([[1e4, -1e4, 0.0, -np.inf]], 2)
    assert (ids.tolist(), weights.tolist()) == ([[0, 2]], [[1.0, 0.0]])
    ids, weights = logs.choose([[1e4, -1e4, 0.0, -np.inf]], 3, "sigmoid")
    assert (ids.tolist(), weights.tolist()) == ([[0, 2, 1]], [[1.0, 0.5, 0.0]])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"logits": [[0.0, np.nan]]}, r"logits\[0, 1\] = nan must be a finite number or -inf"),
        ({"logits": [[0.0, np.inf]]}, "must be a finite number or -inf"),
        ({"logits": [[-np.inf, -np.inf]]}, "at least one must be finite"),
        ({"logits": [[0.0, -np.inf]], "top": 2}, "top = 2 is more than"),
        ({"top": 3}, "top = 3 must be a whole number between 1 and 2"),
        ({"scoring": "max"}, "scoring = 'max' must be one of softmax"),
        ({"scoring": "sigmoid+bias"}, "bias must be given"),
        ({"bias": [0.0, 0.0]}, "bias goes with scoring"),
        ({"scoring": "sigmoid+bias", "bias": [0.0]}, r"bias has shape \(1,\)"),
        ({"scoring": "group-limited"}, "n_group and topk_group must be given"),
        ({"n_group": 2}, "n_group and topk_group must be given"),
        ({"n_group": 2, "topk_group": 3}, "topk_group = 3 must be a whole number between 1 and"),
        ({"n_group": 2, "topk_group": 1, "top": 2}, "top = 2 must be a whole number between 1 and 1"),
        ({"logits": [0.0, 1.0]}, "must have the axes"),
    ],
)
def test_what_scoring_refuses(change, message):
    with pytest.raises((ValueError, TypeError), match=message):
        logs.choose(**({"logits": [[0.0, 1.0]], "top": 1} | change))


@pytest.mark.parametrize(
    "kind", ["npz", "safetensors", "bfloat16", "float8_e4m3fn", "float8_e5m2", "pt", "tuple", "stack"]
)
def test_router_logits(tmp_path, kind):
    exact = torch.from_numpy(np.random.default_rng(0).normal(size=(3, 50, 8)) * 4)
    kept = exact.to(getattr(torch, kind) if kind.startswith(("bf", "float8")) else torch.float32)
    layers = {f"router_logits.{k}": kept[k].contiguous() for k in range(3)}
    if kind == "npz":
        np.savez(tmp_path / "x.npz", **{k: v.numpy() for k, v in layers.items()})
        source = tmp_path / "x.npz"
    elif kind == "pt":
        torch.save({"router_logits": tuple(layers.values()), "loss": torch.zeros(())}, tmp_path / "x.pt")
        source = tmp_path / "x.pt"
    elif kind == "tuple":
        source = tuple(layers.values())
    elif kind == "stack":
        np.save(tmp_path / "router_logits.npy", np.asfortranarray(kept.numpy().astype(">f4")))
        source = tmp_path / "router_logits.npy"
    else:
        save_torch(layers, tmp_path / "x.safetensors")
        source = tmp_path / "x.safetensors"
    log = logs.read(source, scoring="softmax", top=2)
    wanted = [reference(kept[k].double().numpy(), 2, "softmax", None, None, None) for k in range(3)]
    assert np.array_equal(log.choices, np.stack([ids for ids, _ in wanted], axis=1))
    assert np.allclose(log.weights, np.stack([weight for _, weight in wanted], axis=1), rtol=1e-6)
    assert log.experts == 8
    if kind != "tuple":  # without a name and a scoring they could be hidden states
        assert logs.recognise(source) == "logits"
    with pytest.raises(ValueError, match="give top="):
        logs.read(source, scoring="softmax")
    if kind != "tuple":
        with pytest.raises(ValueError, match="give scoring=, one of softmax"):
            logs.read(source, top=2)


def test_logits_of_a_batch_are_documents_and_biases_are_read():
    logits = np.random.default_rng(0).normal(size=(2, 4, 25, 8)).astype(np.float32)  # layers, batch, tokens, experts
    arrays = {f"model.layers.{k}.router_logits": logits[k] for k in range(2)}
    bias = {f"model.layers.{k}.e_score_correction_bias": np.linspace(0, k, 8) for k in range(2)}
    log = logs.read(arrays | bias, scoring="sigmoid+bias", top=3)
    assert np.array_equal(np.bincount(log.documents), [25] * 4)
    for k in range(2):
        flat = logits[k].reshape(100, 8).astype(float)
        wanted = reference(flat, 3, "sigmoid", np.linspace(0, k, 8), None, None)[0]
        assert np.array_equal(log.choices[:, k], wanted)
    logits[1, 2, 3, 4] = np.nan
    with pytest.raises(ValueError, match=r"the given arrays: layer 'layer.1', tokens from 0 on: logits\[53, 4\] = nan"):
        logs.read(arrays, scoring="softmax", top=2)


@pytest.mark.parametrize("name", ["float8_e4m3fn", "float8_e5m2"])
def test_every_8_bit_number(name):
    code = np.arange(256, dtype=np.uint8)
    wanted = torch.from_numpy(code).view(getattr(torch, name)).float().numpy()
    assert np.array_equal(decode(Coded(code, name)), wanted, equal_nan=True)


# --- padding and repeats ----------------------------------------------------------------------------------------------


def test_a_trace_of_87_percent_dummy_rows_is_called_out():
    choices = made(1000, layers=4, k=2, experts=16)
    choices[130:] = choices[129]
    log = logs.read(choices)
    assert log.repeated == pytest.approx(0.87, abs=0.002)
    [caution] = [note for note in log.notes if note.startswith("CAUTION")]
    assert "87.1% of the tokens have the very choices of the row before" in caution
    assert "longest run 870" in caution
    assert len(logs.read(choices, repeats="drop")) == 130


@pytest.mark.parametrize("period", [2, 7, 64])
def test_repeats_of_any_period(period, monkeypatch):
    choices = made(2000, layers=4, k=2, experts=16)
    choices[600:] = np.resize(choices[600 : 600 + period], choices[600:].shape)
    log = logs.read(choices)
    assert log.repeated == pytest.approx((1400 - period) / 2000, abs=0.04)
    assert any(note.startswith("CAUTION") and f"row {period} before" in note for note in log.notes)
    rest = logs.read(choices, repeats="drop")
    assert (len(rest), rest.repeated) == (600 + period, 0)
    monkeypatch.setattr(counting, "BLOCK", 8 * 100)
    assert len(logs.read(choices, repeats="drop")) == 600 + period


def test_copies_at_long_distances_are_said():
    choices = made(300, layers=4, k=2, experts=16)
    log = logs.read(np.concatenate([choices, choices]))
    assert any("50.0% of the first 600 tokens have the very choices of an earlier token" in note for note in log.notes)


def test_logs_without_repeats_are_not_called_out():
    assert logs.read(made(3000, layers=4, k=2, experts=16)).repeated == 0
    few = logs.read(made(3000, layers=1, k=1, experts=4))  # a quarter repeats by chance
    assert few.repeated < 0.05
    assert not [note for note in few.notes if "choices of" in note]


@given(st.integers(1, 64), st.integers(1, 300), st.integers(2, 500), st.integers(1, 97))
@settings(max_examples=80, deadline=None)
def test_repeats_do_not_depend_on_the_blocks(lag, runs, total, step):
    codes = np.random.default_rng(runs).integers(0, 4 if runs % 2 else 10**9, total).astype(np.uint64)
    codes[total // 3 :] = np.resize(codes[total // 3 : total // 3 + lag], total - total // 3)
    whole = repeats.find([codes])
    assert repeats.find(codes[k : k + step] for k in range(0, total, step)) == whole
    share = [np.mean(codes[k:] == codes[:-k]) if k < total else 0.0 for k in range(1, 65)]
    same = "".join("x" if a == b else " " for a, b in zip(codes[whole.lag :], codes))
    assert whole.longest == max(map(len, same.split()), default=0)
    assert whole.share == pytest.approx(share[whole.lag - 1], abs=1e-12)
    assert whole.share >= 0.98 * max(share)


@pytest.mark.parametrize("step", [1, 30, 63, 64, 65, 1000])
def test_the_longest_distance_across_blocks(step):
    codes = np.resize(np.random.default_rng(0).integers(0, 2**60, 64), 500).astype(np.uint64)
    found = repeats.find(codes[k : k + step] for k in range(0, 500, step))
    assert (found.share, found.lag, found.longest) == (1.0, 64, 436)


def test_codes_differ_where_rows_do():
    rows = np.stack(np.meshgrid(*[np.arange(-1, 8)] * 5), axis=-1).reshape(-1, 1, 5)
    assert len(np.unique(repeats.row_codes(rows))) == len(rows)


def test_buffers_that_were_not_filled():
    choices = made(100, layers=2, k=2)
    choices[60:] = 0
    log = logs.read(choices, experts=8)
    same(log, choices[:60])
    assert "40 name one expert k times in every layer" in log.notes[0]
    choices[:30, 0, 1] = choices[:30, 0, 0]
    log = logs.read({"choices": choices}, experts=8)
    assert any(
        note.startswith("CAUTION: in 50.0% of the first 60 tokens an expert is named twice") for note in log.notes
    )


def test_documents_and_weights_lose_the_padding_too():
    choices = made(30, layers=2, k=2)
    choices[10:20] = -1
    weights = np.random.default_rng(0).random(choices.shape)
    log = logs.read({"choices": choices, "weights": weights, "lengths": np.array([15, 15])}, experts=8)
    keep = np.r_[0:10, 20:30]
    same(log, choices[keep], weights[keep])
    assert np.array_equal(np.bincount(log.documents), [10, 10])


def test_dense_layers_of_zeros():
    """As SGLang's recorder begins: a buffer of zeros, whose dense layers nobody fills."""
    choices = made(100, layers=4, k=2)
    choices[:, 0] = 0
    log = logs.read({"choices": choices}, experts=8)
    same(log, choices[:, 1:])
    assert log.layers == ("layer.1", "layer.2", "layer.3")
    assert log.notes == (
        "1 layers name one expert k times throughout (no experts, or a buffer that was not filled) and are left out: layer.0.",
    )


def test_a_number_for_missing_ids_does_not_count_as_an_expert():
    choices = made(100, layers=2, k=2, dtype=np.uint8)
    choices[90:] = 255
    log = logs.read({"choices": choices})
    assert log.experts == 8
    assert len(log) == 90


def test_probabilities_under_the_name_of_logits():
    logits = np.random.default_rng(0).normal(size=(80, 8))
    share = torch.softmax(torch.from_numpy(logits), 1).numpy()
    log = logs.read({"router_logits.0": share}, scoring="softmax", top=2)
    wanted = reference(logits, 2, "softmax", None, None, None)
    same(log, wanted[0][:, None], wanted[1][:, None])
    assert "are probabilities, not logits" in log.notes[1]
    same(logs.read({"router_logits.0": logits}, scoring="softmax", top=2), wanted[0][:, None], wanted[1][:, None])


@pytest.mark.parametrize(
    "arrays",
    [
        {"input_ids": np.arange(64).reshape(4, 16) * 37 % 50000},
        {"labels": np.arange(100) % 10},
        {"attention_mask": np.ones((4, 16), np.int64)},
        {
            "model.layers.0.mlp.gate.weight": np.zeros((8, 16)),
            "model.layers.0.mlp.gate.e_score_correction_bias": np.zeros(8),
        },
        {"model.layers.0.qweight": np.ones((8, 16), np.int32), "model.layers.0.scales": np.ones((8, 2), np.float16)},
        {"logits": np.zeros((4, 16, 100))},
        {"x": np.zeros((3, 2, 2, 2), int)},
        {"choices": np.zeros((3, 2, 2), bool)},
        {"x": np.zeros((0, 2, 2), int)},
        {},
    ],
)
def test_what_is_no_routing_log(arrays):
    assert logs.recognise(arrays) is None


def test_names_of_layers_in_the_file(tmp_path):
    np.savez(tmp_path / "x.npz", choices=made(20, layers=2), layers=np.array(["a", "b"]))
    assert logs.read(tmp_path / "x.npz").layers == ("a", "b")


# --- bad input --------------------------------------------------------------------------------------------------------


def test_python_objects_are_never_loaded(tmp_path):
    class Bad:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "loaded"),)

    np.save(tmp_path / "x.npy", np.array([Bad()], object), allow_pickle=True)
    np.savez(tmp_path / "x.npz", choices=np.array([Bad()], object))
    torch.save({"logical_count": Bad()}, tmp_path / "x.pt")
    for name in ("x.npy", "x.npz", "x.pt"):
        with pytest.raises(TypeError, match="Python objects"):
            logs.read(tmp_path / name)
    assert not (tmp_path / "loaded").exists()


@pytest.mark.parametrize("name", ["x.npy", "x.npz", "x.safetensors", "x.pt", "x.json", "x.jsonl"])
@pytest.mark.parametrize("part", [0.0, 0.02, 0.5, 0.99])
def test_truncated_files(tmp_path, name, part):
    choices, path = made(50, dtype=np.int32), tmp_path / name
    match path.suffix:
        case ".npy":
            np.save(path, choices)
        case ".npz":
            np.savez_compressed(path, choices=choices)
        case ".safetensors":
            save_file({"choices": choices}, path)
        case ".pt":
            torch.save({"choices": torch.from_numpy(choices)}, path)
        case ".json":
            path.write_text(json.dumps({"choices": choices.tolist()}))
        case ".jsonl":
            path.write_text(json.dumps({"routed_experts": choices.tolist()}))
    assert logs.recognise(path) is not None
    data = path.read_bytes()
    path.write_bytes(data[: int(part * len(data))])
    with pytest.raises((ValueError, TypeError)) as caught:
        logs.read(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_headers_that_lie(tmp_path):
    path = tmp_path / "x.npy"
    np.save(path, made(50))
    data = path.read_bytes()
    path.write_bytes(data.replace(b"(50, 3, 2)", b"(50000, 3, 2)".ljust(10))[: len(data)])
    with pytest.raises(ValueError, match=r"is not a complete \.npy file"):
        logs.read(path)
    header = json.dumps({"choices": {"dtype": "I64", "shape": [10**9, 3, 2], "data_offsets": [0, 8]}}).encode()
    (tmp_path / "x.safetensors").write_bytes(struct.pack("<Q", len(header)) + header + bytes(8))
    with pytest.raises(ValueError, match=r"is not a complete \.safetensors file"):
        logs.read(tmp_path / "x.safetensors")
    (tmp_path / "x.safetensors").write_bytes(struct.pack("<Q", 2**60) + header)
    with pytest.raises(ValueError, match=r"is not a complete \.safetensors file"):
        logs.read(tmp_path / "x.safetensors")
    with zipfile.ZipFile(tmp_path / "x.npz", "w") as file:
        file.writestr("choices.npy", data.replace(b"(50, 3, 2)", b"(60, 3, 2)"))
    with pytest.raises(ValueError, match="its header says 3008 bytes but it has 2528"):
        logs.read(tmp_path / "x.npz")


def bomb(path, size):
    """An archive whose member says and holds so many zeros, deflated in one go without making them all."""
    head = io.BytesIO()
    np.lib.format.write_array_header_1_0(head, {"descr": "|i1", "fortran_order": False, "shape": (size, 1, 1)})
    with (
        zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file,
        file.open("choices.npy", "w", force_zip64=True) as member,
    ):
        member.write(head.getvalue())
        for start in range(0, size, 2**20):
            member.write(bytes(min(2**20, size - start)))


def test_archives_that_expand_without_bound(tmp_path, monkeypatch):
    monkeypatch.setattr(archive, "LIMIT", 2**22)
    bomb(tmp_path / "x.npz", 2**23)
    assert (tmp_path / "x.npz").stat().st_size < 2**14
    with pytest.raises(ValueError, match=r"expands to 0.0 GiB but may add at most"):
        logs.read(tmp_path / "x.npz")
    # one that lies about its size in the directory: its stream is never read beyond what it says
    data = bytearray((tmp_path / "x.npz").read_bytes())
    at = data.rindex(b"PK\x01\x02")
    assert struct.unpack("<I", data[at + 24 : at + 28])[0] > 2**23
    data[at + 24 : at + 28] = struct.pack("<I", 2**12)
    (tmp_path / "x.npz").write_bytes(data)
    tracemalloc.start()
    with pytest.raises(ValueError, match="'choices'"):
        logs.read(tmp_path / "x.npz")
    assert tracemalloc.get_traced_memory()[1] < 2**22
    tracemalloc.stop()


def test_tensors_that_expand_without_bound(tmp_path, monkeypatch):
    torch.save({"logical_count": torch.ones(1, dtype=torch.int32).expand(10**6, 100, 64)}, tmp_path / "x.pt")
    assert (tmp_path / "x.pt").stat().st_size < 2**12
    with pytest.raises((ValueError, TypeError), match="repeats a few numbers"):
        logs.read(tmp_path / "x.pt")


def test_torch_files_that_hold_one_thing_many_times(tmp_path):
    record = {"topk_ids_of_layer": torch.from_numpy(made(2000).swapaxes(0, 1).copy())}
    torch.save({"records": [record] * 100_000, "last_physical_to_logical_map": None}, tmp_path / "x.pt")
    with pytest.raises(ValueError, match=r"records\[1\].topk_ids_of_layer is the very tensor of an earlier record"):
        logs.read(tmp_path / "x.pt")
    nested = [{}]
    for _ in range(8):
        nested = [nested] * 100
    torch.save(nested, tmp_path / "x.pt")
    assert logs.recognise(tmp_path / "x.pt") is None


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("x.json", "[" * 100000, "is not JSON"),
        ("x.json", "{}", "is no routing log"),
        ("x.json", "3", "is no routing log"),
        ("x.json", '{"choices": [[[0, 1]], [[0]]]}', "does not convert to an array"),
        ("x.json", '{"choices": [[["a", "b"]]]}', "is no routing log"),
        ("x.json", '{"choices": [{"index": 0, "text": "no experts were asked for"}]}', "is no routing log"),
        ("x.json", '{"counts": [[[9007199254740993, 1]]]}', r"holds 9007199254740993 but must be at most 2\^53"),
        ("x.json", '{"counts": [[[1], [2]]]}', "one expert, but must have at least 2"),
        ("x.json", '{"choices": [[[0, 4294967296]], [[0, 1]]]}', r"ids of experts must be below 2\^31"),
        ("x.json", '{"counts": [[[1, -2]]]}', r"counts\[0, 0, 1\] = -2, layer 'layer.0', must be at least 0"),
        ("x.json", '{"counts": [[[1, 0.5]]]}', "holds 0.5 but must hold whole numbers"),
        ("x.json", '{"counts": [[[0, 0]]]}', "0 throughout"),
        ("x.json", '{"choices": [[[0, 1]], [[-1, 3]], [[2, -5]]]}', r"choices holds -5 \(token 2, layer 'layer.0'\)"),
        ("x.json", '{"choices": [[[-1, -1]], [[-1, -1]]]}', "all padding"),
        ("x.json", '{"choices": [[[3, 3]], [[0, 0]]]}', "names one expert k times in every layer, all padding"),
        ("x.jsonl", '{"iter": 1, "layer": 0, "tpe": []}', "no step at all"),
        ("x.jsonl", '{"iter": 1, "layer": 0, "tpe": [["a"]]}', "line 1, must have iter, layer and tpe"),
        (
            "x.jsonl",
            '{"routed_experts": [[[0, 1], [1, 0]]]}\n{"routed_experts": [[[0, 1]]]}',
            r"of request 1 has shape",
        ),
        ("x.jsonl", '{"routed_experts": "k05VTVBZ!!"}', "is not base64"),
        ("x.jsonl", '{"routed_experts": "k05VTVBZAQB2"}', "is not a .npy file in base64"),
        (
            "x.jsonl",
            '{"a": {"routed_experts": {"data": "AAAA", "shape": [9, 9, 9]}}}',
            "3 bytes, which are not uint8 of",
        ),
        (
            "x.jsonl",
            '{"token": 0, "expert": 1}\n{"token": 1, "expert": "x"}',
            "column 'expert' must hold whole numbers",
        ),
        ("x.jsonl", '{"token": 0, "expert": 1}\nnonsense', "line 2, is not JSON"),
        ("x.csv", "token,expert\n0,1\n1", "line 3, has 1 fields but must have 2"),
        ("x.csv", "token,token\n0,1\n", "names a column twice"),
        ("x.csv", "a,b\n0,1\n", "is no routing log .it holds the columns a, b"),
        ("x.csv", "token,expert\n", "no row at all"),
        ("x.csv", "layer,expert,count\n0,0,5\n0,0,6\n", "two rows count the same step, layer and expert"),
        ("x.csv", "layer,expert,count\n0,-3,5\n", "'expert' holds -3"),
        ("x.csv", "0,1\n0,1,2\n", "lines of equally many numbers"),
        ("expert_weights_1.txt", "1\t2\t0.5\t0.5\n", "must be whole numbers, two tabs, and numbers"),
    ],
)
def test_bad_files(tmp_path, name, text, message):
    (tmp_path / name).write_text(text)
    with pytest.raises((ValueError, TypeError), match=message) as caught:
        logs.read(tmp_path / name, top=2)
    assert "\n" not in str(caught.value)
    assert name in str(caught.value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"experts": 1}, "experts = 1 must be"),
        ({"top": 0}, "top = 0 must be"),
        ({"layout": "x"}, "layout = 'x' must be one of"),
        ({"layers": 0}, "layers = 0 must be the names"),
        ({"layers": True}, "layers = True must be the names"),
        ({"layers": 1.5}, r"layers = 1.5 must be the names"),
        ({"layers": "abc"}, "layers = 'abc' must be the names"),
        ({"layers": ["a"]}, "layers names 1 layers but the file has 3"),
        ({"documents": [0]}, "documents has shape .1,. but must have one entry for each of the 50"),
        ({"repeats": "no"}, "repeats = 'no' must be one of keep, drop"),
        ({"parts": ["a"]}, "parts = 'a' must be one of ''"),
    ],
)
def test_bad_arguments(change, message):
    with pytest.raises((ValueError, TypeError), match=message):
        logs.read({"choices": made(50)}, **change)


def test_layers_that_differ_are_refused():
    with pytest.raises(ValueError, match=r"layers differ in shape .*'layer.0.topk_ids' \(50, 2\)"):
        logs.read({"layer.0.topk_ids": made(50)[:, 0], "layer.1.topk_ids": made(49)[:, 0]})
    with pytest.raises(ValueError, match="2000 layers of 20 tokens: its axes must be"):
        logs.read({"choices": np.zeros((20, 2000, 1), int)})


@given(
    st.binary(max_size=200), st.sampled_from([".npy", ".npz", ".safetensors", ".pt", ".json", ".jsonl", ".csv", ".txt"])
)
@settings(max_examples=150, deadline=None)
def test_any_bytes_give_one_sentence(tmp_path_factory, data, ending):
    path = tmp_path_factory.mktemp("bytes") / f"x{ending}"
    path.write_bytes(data)
    assert "\n" not in said(path)


@given(st.integers(0, 2**32 - 1), st.sampled_from([".npy", ".npz", ".safetensors", ".pt"]))
@settings(max_examples=100, deadline=None)
def test_any_damage_gives_one_sentence(tmp_path_factory, seed, ending):
    path, rng = tmp_path_factory.mktemp("damage") / f"x{ending}", np.random.default_rng(seed)
    choices = made(20, dtype=np.int32)
    {
        ".npy": lambda: np.save(path, choices),
        ".npz": lambda: np.savez(path, choices=choices),
        ".safetensors": lambda: save_file({"choices": choices}, path),
        ".pt": lambda: torch.save({"choices": torch.from_numpy(choices)}, path),
    }[ending]()
    data = bytearray(path.read_bytes())
    for at in rng.integers(0, len(data), 3):
        data[at] = rng.integers(256)
    path.write_bytes(data)
    assert "\n" not in said(path)


def said(path):
    """What is said of a file: nothing, or a sentence of the kinds of error that are allowed."""
    try:
        logs.read(path)
    except (ValueError, TypeError) as problem:
        return str(problem)
    return ""


# --- memory and discovery ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("kind", "fortran"), [("<i4", False), (">i4", True)])
@pytest.mark.parametrize("compiled", [True, False])
def test_memory_is_bounded(tmp_path, monkeypatch, kind, fortran, compiled):
    """A file of 92 MiB read and counted in 64 MiB: by blocks, never whole, whatever its byte order and axes."""
    if not compiled:
        monkeypatch.setattr(counting, "_kernel", lambda: None)
    path = tmp_path / "choices.npy"
    array = np.lib.format.open_memmap(path, "w+", kind, (1_000_000, 8, 3), fortran_order=fortran)
    start = np.arange(1_000_000, dtype=np.int64)[:, None] * 7919 % 60
    for layer in range(8):
        array[:, layer] = start * (layer + 1) % 60 + np.arange(3)
    array.flush()
    tracemalloc.start()
    log = logs.read(path, experts=64)
    total = log.loads(100_000)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert path.stat().st_size > 1.4 * 2**26
    assert peak < 2**26
    assert isinstance(log.choices, np.memmap)
    assert total.sum() == 24_000_000
    assert total[:, 0].sum(axis=0).tolist() == np.bincount((start + np.arange(3)).ravel(), minlength=64).tolist()


def test_every_layout_says_what_it_is():
    for name, module in logs.layouts().items():
        assert name == module.NAME
        assert module.ABOUT
        assert isinstance(module.RANK, int)


def test_the_embedded_example():
    log = logs.read(logs.example())
    assert (len(log), log.experts, log.top, len(log.layers)) == (13824, 16, 2, 4)
    assert len(np.unique(log.documents)) == 24
    weights = np.asarray(log.weights, float)
    assert (weights[:, :, 0] >= weights[:, :, 1]).all()
    assert (weights.sum(axis=2) <= 1.001).all()
    assert log.repeated < 0.2
    from_logits = logs.read(logs.example("logits"), scoring="softmax", top=2)
    assert (np.asarray(from_logits.choices) == np.asarray(log.choices)[:512]).mean() > 0.99  # logits are in float16
    with pytest.raises(ValueError, match="kind = 'x' must be one of choices, logits"):
        logs.example("x")


def test_zlib_is_what_the_bomb_uses():
    assert len(zlib.compress(bytes(2**20))) < 2**11
    assert scoring.SCORINGS == ("softmax", "sigmoid", "sigmoid+bias", "group-limited")


# --- the benchmark and the example's maker ----------------------------------------------------------------------------


def test_the_record_of_counting_meets_its_goal():
    record = json.loads((ROOT / "simulations/results/counting_benchmark.json").read_text())
    page = (ROOT / "docs/logs.md").read_text()
    speeds = {
        name: [] for name in ("package", "package, whole log", "NumPy", "pandas, value_counts", "pandas, groupby")
    }
    for shape in record["shapes"].values():
        for name, found in speeds.items():
            way = next(w for w in shape["ways"] if w == name or (name not in shape["ways"] and w.startswith(name)))
            found.append(shape["ways"][way]["choices_per_s"] / 1e6)
    assert min(speeds["package"]) > 1400
    assert min(speeds["package, whole log"]) > 100
    assert "Counting takes 1,400 million choices a second" in page
    for name, text in (
        ("package, whole log", "117 to 155"),
        ("NumPy", "256 to 445"),
        ("pandas, value_counts", "122 to 162"),
    ):
        low, high = map(int, text.split(" to "))
        assert text in page
        assert [low, high] == pytest.approx([min(speeds[name]), max(speeds[name])], rel=0.01)
    assert "`groupby` 10 million" in page
    assert speeds["pandas, groupby"] == pytest.approx([10, 10], rel=0.1)


def test_the_benchmark_compares_equal_counts(monkeypatch, capsys):
    from simulations import counting_benchmark as benchmark

    monkeypatch.setattr(benchmark, "SHAPES", {"small": (20_000, 2, 3, 16)})
    benchmark.run(1)
    printed = capsys.readouterr().out
    assert "small, 2 layers: 0 million choices" in printed
    assert "NumPy, bincount by block and layer" in printed
    honest = benchmark.contenders
    monkeypatch.setattr(benchmark, "contenders", lambda *a: honest(*a) | {"false": lambda: np.zeros((2, 2, 16))})
    with pytest.raises(ValueError, match="false counts otherwise than the package"):
        benchmark.run(1)


def test_the_maker_of_the_example(monkeypatch):
    """Its routers choose the largest logits, and the stored lengths are those of its documents."""
    from simulations import routing_trace as maker

    model, windows = (
        maker.model_of(1),
        [np.arange(129, dtype=np.uint8)[None].repeat(2, 0), np.zeros((1, 129), np.uint8)],
    )
    arrays, loss = maker.trace(model, windows)
    assert arrays["expert"].shape == (384, 4, 2)
    assert np.array_equal(np.argsort(-arrays["logits"], axis=2, kind="stable")[..., :2], arrays["expert"])
    assert 4 < loss < 8  # nobody has trained it: ln 256 = 5.5
    from resonance_theory.logs.files.opening import open_source

    content = open_source(logs.example())
    assert content.metadata["made by"] == maker.COMMAND
    assert content.arrays["lengths"].tolist() == [128 * (k % 8 + 1) for k in range(maker.DOCUMENTS)]
