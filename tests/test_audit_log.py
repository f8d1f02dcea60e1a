"""The audit of routers' logs against brute force, known laws and simulation; and what it refuses."""

import itertools
import json

import numpy as np
import pytest
from scipy import stats

import resonance_theory as rt
from resonance_theory.audit import counts
from resonance_theory.audit.load_laws import BlockLoads, FittedLoads
from resonance_theory.audit.log_blocks import LogBlocks
from resonance_theory.audit.log_measure import copies
from resonance_theory.cli import main
from resonance_theory.logs import RoutingLog

SHARES = np.array([0.3, 0.2, 0.15, 0.1, 0.1, 0.05, 0.05, 0.05])


def counts_log(shares, steps=64, tokens=512, top=1, seed=0, spread=None):
    """Steps of independent tokens; with `spread`, every step draws its own shares about these (Dirichlet)."""
    rng = np.random.default_rng(seed)
    own = np.tile(shares, (steps, 1)) if spread is None else rng.dirichlet(shares / shares.sum() * spread, steps)
    load = np.array([rng.multinomial(tokens * top, row / row.sum()) for row in own])[:, None]
    return RoutingLog(experts=len(shares), counts=load, tokens=np.full(steps, tokens))


def choices_log(shares, tokens=4096, layers=1, seed=0, documents=None, spread=20.0):
    rng = np.random.default_rng(seed)
    if documents is None:
        chosen = rng.choice(len(shares), p=shares, size=(tokens, layers, 1))
        return RoutingLog(experts=len(shares), choices=chosen)
    own = rng.dirichlet(shares * spread, size=documents)
    name = np.repeat(np.arange(documents), tokens // documents)
    chosen = np.array([[[rng.choice(len(shares), p=own[d])] for _ in range(layers)] for d in name])
    return RoutingLog(experts=len(shares), choices=chosen, documents=name)


# --- loads and laws ---------------------------------------------------------------------------------------------------


def test_drops_and_capacities_are_those_of_brute_force():
    report = rt.audit.audit_log(counts_log(SHARES), factors=[1.0, 1.25, 2.0], loss=0.02)
    load, layer = counts_log(SHARES).counts[:, 0], report.layers[0]
    for drop in layer.drops:
        c = int(np.ceil(drop.factor * 512 / 8))
        assert drop.capacity == c
        assert drop.measured == sum(max(n - c, 0) for row in load for n in row) / load.sum()
    least = next(c for c in range(513) if np.maximum(load - c, 0).sum() <= 0.02 * load.sum())
    assert layer.capacity == least
    assert layer.capacity_factor == least * 8 / 512
    assert layer.slowest == pytest.approx(np.mean([row.max() / row.mean() for row in load]), rel=1e-12)
    np.testing.assert_allclose(layer.share, load.sum(0) / load.sum(), rtol=1e-14)


def test_independent_laws_are_exact():
    law = FittedLoads(SHARES, 0.01, 10, 1)
    for name, share in (("shares", SHARES), ("uniform", np.full(8, 1 / 8))):
        k = np.arange(513)
        mean = sum((stats.binom.pmf(k, 512, p) * np.maximum(k - 80, 0)).sum() for p in share) / 512
        assert law.drop(name, 80, np.array([512])) == pytest.approx(mean, rel=1e-9)
    k = np.arange(513)
    a, b = SHARES * 99, (1 - SHARES) * 99  # correlation 1/(1 + a + b)
    mean = sum((stats.betabinom.pmf(k, 512, x, y) * np.maximum(k - 80, 0)).sum() for x, y in zip(a, b)) / 512
    assert law.drop("over_dispersed", 80, np.array([512])) == pytest.approx(mean, rel=1e-9)


@pytest.mark.parametrize("correlation", [0.0, 1e-6, 1e-4, 0.003, 0.1, 0.6])
@pytest.mark.parametrize("factor", [0.5, 1.0, 1.2, 1.5, 3.0])
def test_many_tokens_are_close_to_the_exact_sum(correlation, factor):
    """The Beta limit against the sum over all counts, at twice the size from which it is used."""
    share = np.r_[0.001, 0.01, 0.05, 0.139, 0.8]
    slots, tokens = int(factor * 65536 / 5), 65536
    exact = float(counts.beta_binomial_drop(tokens, share, correlation)[slots])
    law = FittedLoads(share, correlation, 10, 1).drop("over_dispersed", slots, np.array([tokens]))
    assert law == pytest.approx(exact, abs=1e-4)
    huge = FittedLoads(share, correlation, 10, 1).drop("over_dispersed", slots * 10**5, np.array([tokens * 10**5]))
    assert 0 <= huge <= exact + 1e-4  # fewer tokens fluctuate more


def test_the_correlation_is_that_of_the_older_fit_and_is_recovered():
    log = counts_log(SHARES, spread=50.0, steps=400)
    loads = LogBlocks.of(log, None).layer(0)
    fitted = FittedLoads.to(loads)
    older = counts.fit(loads.load, 512, 1)
    assert 1 + 511 * fitted.correlation == pytest.approx(older.ratio, rel=1e-12)
    assert fitted.correlation == pytest.approx(1 / 51, rel=0.15)  # six standard errors; independence is 0
    assert FittedLoads.to(BlockLoads(loads.load[:1], loads.tokens[:1], 1)).correlation is None


def test_steps_of_different_sizes():
    """Twice the same loads, once in steps twice as large: shares and laws by the capacity factor, not by slots."""
    rng = np.random.default_rng(4)
    tokens = np.r_[np.full(40, 256), np.full(40, 1024)]
    load = np.array([rng.multinomial(s, SHARES) for s in tokens])
    loads = BlockLoads(load, tokens, 1)
    c = loads.capacity(1.5)
    assert c == 192
    assert loads.drop(c) == np.maximum(load - np.where(tokens == 256, 48, 192)[:, None], 0).sum() / load.sum()
    law = FittedLoads.to(loads)
    parts = [law.drop("shares", s * 3 // 16, np.array([s])) for s in (256, 1024)]
    assert law.drop("shares", c, tokens) == pytest.approx((256 * parts[0] + 1024 * parts[1]) / 1280, rel=1e-12)
    assert abs(law.correlation) < 0.001
    many = np.arange(200, 1000)
    own = sum(s * law.drop("shares", -(-c * s // 999), np.array([s])) for s in many.tolist()) / many.sum()
    assert law.drop("shares", c, many) == pytest.approx(own, rel=0.02)  # eight sizes for eight hundred


def test_choices_and_their_counts_give_one_report():
    log = choices_log(SHARES, layers=2)
    load = log.loads(256)
    other = RoutingLog(experts=8, counts=load, tokens=np.full(len(load), 256))
    one, two = (rt.audit.audit_log(given, block=b) for given, b in ((log, 256), (other, None)))
    for a, b in zip(one.layers, two.layers):
        assert (a.capacity, a.capacity_sure, a.share, a.held_out) == (b.capacity, b.capacity_sure, b.share, b.held_out)
        assert [d.measured for d in a.drops] == [d.measured for d in b.drops]
    assert (one.kind, two.kind, one.block, two.block) == ("choices", "counts", 256, 256)


def test_padding_counts_nowhere():
    log = choices_log(SHARES)
    padded = np.insert(log.choices, np.arange(0, 4096, 3), -1, axis=0)
    one, two = (rt.audit.audit_log(RoutingLog(experts=8, choices=c), block=256) for c in (log.choices, padded))
    assert one.layers == two.layers
    assert any("1366 tokens without a choice" in note for note in two.notes)


def test_standard_errors_are_those_of_repetition():
    """Of 400 logs: the errors' mean is the drops' standard deviation, to six of its own standard errors."""
    found = []
    for seed in range(400):
        loads = LogBlocks.of(counts_log(SHARES, steps=20, spread=50.0, seed=seed), None).layer(0)
        from resonance_theory.audit.log_measure import _standard_error

        found.append((loads.drop(80), _standard_error(loads, 80)))
    drops, errors = np.array(found).T
    assert errors.mean() == pytest.approx(drops.std(ddof=1), rel=6 * (1 / 800 + 1 / 400 / 10) ** 0.5)


# --- cause and help ---------------------------------------------------------------------------------------------------

EVEN = np.full(8, 1 / 8)


@pytest.mark.parametrize(
    ("shares", "spread", "cause"),
    [
        (EVEN, None, "none"),
        (SHARES, None, "skew"),
        (EVEN, 60.0, "dependence"),
        (np.r_[EVEN[:4] * 1.25, EVEN[4:] * 0.75], 60.0, "both"),
    ],
)
def test_the_cause_is_found(shares, spread, cause):
    log = counts_log(shares, steps=200, tokens=1024, spread=spread, seed=2)
    layer = rt.audit.audit_log(log).layers[0]
    assert layer.cause == cause
    if cause != "none":
        best = {"skew": "shares"}.get(cause, "over_dispersed")
        assert layer.held_out[best].error < layer.held_out["uniform"].error / 3


def test_shuffling_is_measured_and_its_law_is_right():
    log = choices_log(SHARES, tokens=8192, documents=64, spread=8.0)
    layer = rt.audit.audit_log(log, block=256).layers[0]
    shuffle = next(r for r in layer.remedies if r.name == "shuffle")
    drop = next(d for d in layer.drops if d.factor == 1.25)
    assert shuffle.drop == pytest.approx(shuffle.expected, abs=0.006)
    assert drop.measured - shuffle.drop > 0.03  # what documents cost
    assert rt.audit.audit_log(counts_log(SHARES)).layers[0].remedies[0].drop is None  # counts cannot be shuffled


def test_copies_carry_as_little_as_they_can():
    rng = np.random.default_rng(0)
    for _ in range(50):
        share, spare = rng.dirichlet(np.ones(4)), int(rng.integers(0, 5))
        best = min(
            max(share / (1 + np.bincount(given, minlength=4)))
            for given in itertools.combinations_with_replacement(range(4), spare)
        )
        found = copies(share, spare)
        assert found.sum() == 4 + spare
        assert max(share / found) == pytest.approx(best, rel=1e-12)


def test_replicas_by_law_and_by_brute_force():
    loads = LogBlocks.of(counts_log(SHARES, steps=400), None).layer(0)
    plan = np.array([3, 2, 1, 1, 1, 1, 1, 1])
    assert loads.replicated(plan, 60) == np.maximum(loads.load - 60 * plan, 0).sum() / loads.load.sum()
    assert FittedLoads.to(loads).replicated(plan, 60, loads.tokens) == pytest.approx(
        loads.replicated(plan, 60), abs=0.004
    )


def test_halves_share_no_document():
    log = choices_log(SHARES, tokens=4096, documents=64)
    one, two = LogBlocks.of(log, 256).two_logs()
    assert not set(one.documents) & set(two.documents)
    assert len(one.choices) + len(two.choices) == 4096
    for first, second in LogBlocks.of(log, 256).halves(3):
        assert first.load.sum() + second.load.sum() <= 4096
        assert min(first.load.sum(), second.load.sum()) > 1500


def test_the_next_block_is_held_by_an_order_statistic():
    """The 19th smallest of what 19 blocks need alone; the 18th of them would hold at 90 % only."""
    log = counts_log(SHARES, steps=19, spread=50.0)
    need = [next(c for c in range(513) if np.maximum(row - c, 0).sum() <= 0.02 * row.sum()) for row in log.counts[:, 0]]
    sure = [rt.audit.audit_log(log, loss=0.02, confidence=c).layers[0].capacity_sure for c in (0.95, 0.9, 0.96)]
    assert sure == [sorted(need)[18], sorted(need)[17], None]
    assert sure[0] > sure[1]


# --- what is shown ----------------------------------------------------------------------------------------------------


def test_the_answer_comes_first():
    report = rt.audit.audit_log(counts_log(SHARES, tokens=1024), factors=[1.0, 1.25])
    lines = report.table().splitlines()
    drop = 100 * report.layers[0].drops[1].measured
    assert lines[2].startswith(f"At capacity factor 1.25, {drop:.1f} % of the choices find no slot.")
    assert "Cause: some experts are chosen more than others." in lines
    assert max(map(len, report.table(details=True).splitlines())) <= 100
    assert report.rows()[0]["cause"] == "skew"
    assert "<pre>" in report._repr_html_()
    assert repr(report) == "<LogReport: arrays, 1 layers, 8 experts, top-1, blocks of 1024>"


def test_few_blocks_are_said():
    report = rt.audit.audit_log(counts_log(SHARES, steps=3))
    assert "confidence takes 19 blocks" in report.table().replace("\n", " ")
    assert report.layers[0].held_out == {}
    assert any("too few" in note for note in report.notes)
    one = rt.audit.audit_log(counts_log(SHARES, steps=1)).layers[0]
    assert one.correlation is None
    assert one.drops[0].error is None
    assert one.cause == "skew"


def test_figures(tmp_path):
    report = rt.audit.audit_log(choices_log(SHARES, layers=3), block=128)
    for kind in ("svg", "png", "pdf"):
        report.figure(tmp_path / f"a.{kind}")
        assert (tmp_path / f"a.{kind}").stat().st_size > 5000
    text = (tmp_path / "a.svg").read_text()
    for words in ("Lorenz curve", "Shares by layer", "Slowest expert", "measured shares, dependent"):
        assert f"<!-- {words}" in text
    axes = report.plot()
    assert axes.get_xlabel() == "capacity factor"
    rt.audit.audit_log(counts_log(SHARES, steps=1)).figure(tmp_path / "one.svg")


# --- what is refused --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"factors": []}, "factors has shape (0,) but must be a list of at least one number"),
        ({"factors": [0.0]}, "factors[0] = 0.0 must be a finite number in (0, inf)"),
        ({"loss": 1.0}, "loss = 1.0 must be a finite number in (0, 1)"),
        ({"confidence": 0}, "confidence = 0"),
        ({"block": 5000}, "block = 5000 must be at most 4096"),
        ({"block": 0}, "block = 0"),
        ({"layers": [3]}, "layers: 3 of arrays must be a name (layer.0) or a place between 0 and 0"),
        ({"layers": []}, "layers = [] must be a list"),
        ({"layers": ["layer.9"]}, "'layer.9'"),
        ({"experts": 9}, "experts = 9 must be left out or be 8"),
    ],
)
def test_bad_questions(options, words):
    with pytest.raises((ValueError, TypeError)) as caught:
        rt.audit.audit_log(choices_log(SHARES), **options)
    assert words in str(caught.value)


def test_counts_have_no_blocks_to_cut():
    with pytest.raises(ValueError, match="block = 64 must be left out"):
        rt.audit.audit_log(counts_log(SHARES), block=64)
    with pytest.raises(TypeError, match="source is a ndarray"):
        rt.audit.audit_log(np.zeros((3, 3)))


# --- the command ------------------------------------------------------------------------------------------------------


def run(capsys, *arguments):
    capsys.readouterr()
    status = main([str(a) for a in arguments])
    out = capsys.readouterr()
    return status, out.out, out.err


def test_a_log_is_recognised(capsys, tmp_path):
    file = tmp_path / "choices.npz"
    log = choices_log(SHARES, layers=3)
    np.savez(file, choices=log.choices.astype(np.int16))
    picture = tmp_path / "a.svg"
    options = ["--factors", "1,1.5", "--loss", "0.05", "--layers", "0,2", "--block", "128"]
    status, out, _ = run(capsys, "audit", file, *options, "--plot", picture, "--json", "-")
    record = json.loads(out)
    assert status == 0
    assert record["format"] == "resonance-theory log audit 1"
    assert [layer["name"] for layer in record["layers"]] == [log.layers[0], log.layers[2]]
    assert record["block"] == 128
    assert record["factors"] == [1.0, 1.5]
    assert record["loss"] == 0.05
    assert picture.exists()
    status, out, _ = run(capsys, "audit", file, "--details")
    assert status == 0
    assert "law, held out" in out


def test_hidden_states_take_factors_and_loss(capsys):
    status, out, _ = run(capsys, "audit", "example", "--factors", "1.5", "--loss", "0.05", "--json", "-")
    record = json.loads(out)
    assert status == 0
    assert record["loss"] == 0.05
    assert [d["factor"] for d in record["layers"][0]["routings"][0]["drops"]] == [1.5]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--factors", "a"], "'a' must be numbers with commas between them"),
        (["--layers", "9-3"], "must be a range of places that rises"),
        (["--layers", "7"], "a place between 0 and 0"),
        (["--block", "0"], "block = 0"),
        (["--loss", "2"], "loss = 2.0"),
        (["--factors", "-1"], "factors[0] = -1.0"),
    ],
)
def test_bad_options_of_the_command(capsys, tmp_path, options, words):
    file = tmp_path / "choices.npy"
    np.save(file, choices_log(SHARES).choices)
    status, out, err = run(capsys, "audit", file, *options)
    assert (status, out) == (2, "")
    assert words in err
    assert len(err.strip().splitlines()) == 1


def test_options_of_logs_are_refused_for_hidden_states(capsys):
    status, _, err = run(capsys, "audit", "example", "--block", "64")
    assert status == 2
    assert "--block = 64 must be left out for hidden states" in err


def test_counts_of_a_billion_tokens_do_not_overflow():
    load = np.tile(np.r_[2 * 10**9, np.full(6, 10**9), 0], (5, 1))[:, None]
    report = rt.audit.audit_log(RoutingLog(experts=8, counts=load, tokens=np.full(5, 8 * 10**9)), factors=[1.25])
    layer = report.layers[0]
    assert layer.drops[0].capacity == 1_250_000_000
    assert layer.drops[0].measured == pytest.approx(0.75 / 8, rel=1e-9)
    assert layer.drops[0].laws["shares"] == pytest.approx(0.75 / 8, rel=1e-6)
    assert layer.dead == 1
    assert layer.capacity == pytest.approx(2e9 - 0.08e9, rel=1e-8)


def test_whole_numbers_that_tell_no_layout_ask_for_one(tmp_path, capsys):
    """Counts whose layers have unlike sums may be anything; negative ones, and none at all, are refused as a log."""
    rng = np.random.default_rng(0)
    np.save(tmp_path / "odd.npy", rng.integers(1, 90, (30, 2, 8)))
    assert main(["audit", str(tmp_path / "odd.npy")]) == 2
    assert "is no routing log" in capsys.readouterr().err
    assert main(["audit", str(tmp_path / "odd.npy"), "--layout", "counts"]) == 0
    assert "counts of 2 layers, 8 experts" in capsys.readouterr().out
    np.save(tmp_path / "negative.npy", -rng.integers(1, 90, (30, 2, 8)))
    assert main(["audit", str(tmp_path / "negative.npy"), "--layout", "counts"]) == 2
    assert "layer 'layer.0', must be at least 0" in capsys.readouterr().err
    assert main(["audit", str(tmp_path / "odd.npy"), "--layout", "counts", "--center"]) == 2
    assert "--center must be left out for a routing log" in capsys.readouterr().err


def test_logits_by_their_scoring(tmp_path, capsys):
    np.save(tmp_path / "logits.npy", np.random.default_rng(0).normal(size=(2, 512, 8)))  # layers, tokens, experts
    assert main(["audit", str(tmp_path / "logits.npy"), "--scoring", "softmax", "--top", "2", "--block", "64"]) == 0
    assert "8 experts, top-2" in capsys.readouterr().out
