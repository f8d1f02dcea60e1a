"""Torch routers and layers: sets against the rules and plain loops, values against definitions, gradients, edges."""

import math

import numpy as np
import pytest

import resonance_theory as rt
from resonance_theory import homogenization, losses
from resonance_theory.rules import adaptive, expert_choice, resonance, token_choice

torch = pytest.importorskip("torch")
nn = rt.nn
GATES = ["grap", "grap-centred", "simplex", "linear", "orthogonal"]
RULES = ["token_choice", "expert_choice", "resonance"]


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    """Threads cost more than they give on tensors this small."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def tokens(*shape, seed=0, dtype=torch.float32):
    return torch.tensor(np.random.default_rng(seed).standard_normal(shape), dtype=dtype)


def tied(*shape, seed=0):
    """Tokens of few values, hence with many equal scores."""
    return torch.tensor(np.random.default_rng(seed).integers(-1, 2, shape), dtype=torch.float32)


def opposite(*shape, seed=0):
    """Tokens whose cosines with all GrAP gates are negative, below what a masked score of 0 would be."""
    return -1 + 0.1 * tokens(*shape, seed=seed)


def router(dim=24, experts=4, **options):
    torch.manual_seed(1)
    return nn.ResonanceRouter(dim, experts, **options)


def padding(samples=3, length=20, real=(20, 13, 0)):
    return torch.arange(length) >= torch.tensor(real[:samples])[:, None]


def pairs(a):
    sample = [0] * len(a.token) if a.sample is None else np.asarray(a.sample).tolist()
    return list(zip(sample, *(np.asarray(v).tolist() for v in (a.expert, a.slot, a.token))))


def by_rule(rule, score, capacity, top):
    if rule == "expert_choice":
        return expert_choice.route(score, capacity)
    module = resonance if rule == "resonance" else token_choice
    return module.route(score, capacity, top=top)


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("gates", ["grap", "linear"])
@pytest.mark.parametrize("top", [1, 2, 4])
def test_sets_are_those_of_the_rules(rule, gates, top):
    for capacity in (1, 5, 20):
        r = router(rule=rule, gates=gates, top=top, capacity=capacity, statistics=False)
        for x in (tokens(3, 20, 24), tied(3, 20, 24), tied(20, 24), torch.ones(2, 20, 24), torch.zeros(20, 24)):
            routing = r(x)
            score = routing.score.detach() if x.ndim == 3 else routing.score.detach()[0]
            wanted = by_rule(rule, score.numpy(), capacity, top)
            got = routing.assignment()
            assert pairs(got) == pairs(wanted)
            assert np.array_equal(got.load, wanted.load)
            assert np.array_equal(got.kept, wanted.kept)
            flat = routing.dropped.flatten().nonzero().flatten() % 20
            assert np.array_equal(flat, wanted.dropped)


def brute(score, capacity, real, rule):
    """Kept pairs of one sample with one expert per token, by loops: (expert, token)."""
    n = score.shape[1]
    best = [max(range(n), key=lambda i: (score[t, i], -i)) for t in range(len(score))]
    kept = set()
    for i in range(n):
        mine = [t for t in range(len(score)) if real[t] and (rule == "expert_choice" or best[t] == i)]
        if rule != "token_choice":
            mine.sort(key=lambda t: (-score[t, i], t))
        kept |= {(i, t) for t in mine[:capacity]}
    return kept


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("gates", GATES)
def test_sets_by_loops_and_padding(rule, gates):
    mask = padding()
    for make in (tokens, tied, opposite):
        x = make(3, 20, 24, seed=5)
        x[mask] = math.nan  # what stands in padding must not matter
        routing = router(rule=rule, gates=gates, capacity_factor=0.8)(x, mask)
        score, got = routing.score.detach().numpy(), set(pairs(routing.assignment()))
        got = {(b, i, t) for b, i, _, t in got}
        real = (~mask).numpy()
        wanted = set()
        for b in range(3):
            capacity = math.ceil(0.8 * real[b].sum() / 4)
            wanted |= {(b, *pair) for pair in brute(score[b], capacity, real[b], rule)}
        assert got == wanted
        assert not (routing.weight < 0).any()
        assert torch.equal(routing.weight > 0, routing.filled)


def probability_drop(score, top, capacity):
    """The usual router that drops by probability: top-k, other scores set to 0, top-C tokens of every column."""
    masked = torch.zeros_like(score).scatter(1, score.topk(top).indices, score.topk(top).values)
    chosen = torch.zeros_like(score, dtype=torch.bool).scatter(1, score.topk(top).indices, True)
    best = torch.zeros_like(score, dtype=torch.bool).scatter(0, masked.topk(capacity, dim=0).indices, True)
    return set(map(tuple, (chosen & best).T.nonzero().tolist()))


@pytest.mark.parametrize("top", [1, 2])
def test_probability_drop_agrees_on_positive_scores_only(top):
    x = tokens(40, 24, seed=2)
    for capacity in (1, 7, 20, 40):
        routing = router(gates="linear", top=top, capacity=capacity)(x)
        got = {(i, t) for _, i, _, t in pairs(routing.assignment())}
        assert got == probability_drop(routing.probability[0].detach(), top, capacity)
    # A zero for "not a candidate" outranks candidates of negative cosine, so masks must be -inf.
    x = -torch.ones(40, 24) + 0.1 * x
    routing = router(top=top, capacity=20)(x)
    got = {(i, t) for _, i, _, t in pairs(routing.assignment())}
    dropped = probability_drop(routing.score[0], top, 20)
    assert dropped < got


@pytest.mark.parametrize("mass", [0.3, 0.8, 1.0])
@pytest.mark.parametrize("top", [1, 3])
@pytest.mark.parametrize("capacity", [None, 4])
def test_adaptive_capacity_is_the_rule(mass, top, capacity):
    for x in (tokens(3, 20, 24), tied(3, 20, 24), -1 + 0.1 * tokens(3, 20, 24)):
        routing = router(mass=mass, top=top, capacity=capacity)(x)
        wanted = adaptive.route(routing.score.numpy(), mass, top=top, capacity=capacity)
        assert pairs(routing.assignment()) == pairs(wanted)
    mask = padding()
    x = tokens(3, 20, 24)
    short = router(mass=mass, top=top)(x[1:2, :13])
    assert pairs(router(mass=mass, top=top)(x, mask).assignment())[-len(pairs(short.assignment())) :] == [
        (1, *rest) for _, *rest in pairs(short.assignment())
    ]


def test_scores_are_affinities_at_every_scale():
    x = tokens(50, 24, dtype=torch.float64)
    simplex = np.eye(4) - 0.25
    gates = {
        "grap": rt.grap_gates(24, 4),
        "simplex": simplex @ rt.grap_gates(24, 4),
    }
    for name, w in gates.items():
        for scale in (1.0, 1e-300, 1e300):
            score = router(gates=name)(x * scale).score[0].numpy()
            np.testing.assert_allclose(score, rt.affinity(x.numpy(), gates=w), rtol=0, atol=1e-14)
    layer = router(gates="orthogonal").double()
    q = layer.gate.map.weight.detach().numpy()
    np.testing.assert_allclose(q @ q.T, np.eye(24), atol=1e-6)
    gates = rt.grap_gates(24, 4) @ q
    np.testing.assert_allclose(layer(x).score[0].detach(), rt.affinity(x.numpy(), gates=gates), atol=1e-6)


@pytest.mark.parametrize("rule", ["resonance", "token_choice"])
@pytest.mark.parametrize("top", [1, 2])
@pytest.mark.parametrize("backend", ["numba", "naive"])
def test_fused_router_keeps_the_same_sets(rule, top, backend, monkeypatch):
    if backend == "naive":
        monkeypatch.setattr("resonance_theory.kernels.dispatch.usable", lambda _: False)
    else:
        pytest.importorskip("numba")
    mask = padding()
    for options in ({"capacity": 5}, {"capacity_factor": 0.6}):
        options |= {"rule": rule, "top": top, "normalize": True, "statistics": False, "temperature": 0.3}
        fused, plain = router(**options, fused=True), router(**options)
        for x, padded in (
            (tokens(3, 20, 24), None), (tied(3, 20, 24), None), (tied(3, 20, 24), mask), (opposite(3, 20, 24), mask),
            (torch.zeros(2, 20, 24), mask[1:]), (tied(20, 24), None), (torch.ones(20, 24), mask[1]),
        ):  # fmt: skip
            got, wanted = fused(x, padded), plain(x, padded)
            for name in ("token", "filled", "load", "copies", "dropped", "kept"):
                assert torch.equal(getattr(got, name), getattr(wanted, name)), name
            torch.testing.assert_close(got.weight, wanted.weight, rtol=1e-5, atol=0)
            assert pairs(got.assignment()) == pairs(wanted.assignment())
            assert got.assignment().experts == 4
    dropping = router(**options, fused=True, nonfinite="drop"), router(**options, nonfinite="drop")
    x = tokens(1, 20, 24)
    x[0, 3, 5] = math.nan
    assert torch.equal(dropping[0](x).token, dropping[1](x).token)
    with pytest.raises(ValueError, match="NaN or infinite"):
        fused(x)
    assert fused(x[:, :0]).token.shape[:2] == (1, 4)


@pytest.mark.parametrize("top", [1, 2])
def test_fused_layer_trains_alike(top):
    x, mask = tokens(3, 20, 24, dtype=torch.float64), padding()
    gradients = []
    for fused in (False, True):
        m = layer(top=top, normalize=True, statistics=False, fused=fused, capacity_factor=0.8, dtype=torch.float64)
        m.router.temperature = 0.2
        inputs = x.clone().requires_grad_()
        y, routing = m(inputs, mask, return_routing=True)
        (y * torch.arange(24)).sum().backward()
        gradients.append((y, inputs.grad, m.experts.up.grad, m.experts.down.grad))
    for one, other in zip(*gradients):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-12)
    with pytest.raises(ValueError, match="needs the probabilities of all experts"):
        routing.load_balance()
    with pytest.raises(ValueError, match="needs the probabilities of all experts"):
        routing.locality(torch.tensor([True, False, True, False]), epsilon=0.1)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_agrees_with_the_fused_kernels(dtype):
    x = tokens(3, 200, 24, seed=8, dtype=torch.float64).to(dtype)
    routing = router(top=2, capacity=90)(x)
    weight, expert = rt.kernels.top_affinity(x, 4, top=2)
    assert torch.equal(routing.expert, expert)
    best = routing.score.gather(-1, expert)
    torch.testing.assert_close(best, weight, rtol=0, atol=4 * torch.finfo(best.dtype).eps)
    assert pairs(routing.assignment()) == pairs(rt.kernels.route(x, 4, 90, top=2))


def test_centred_gates_and_their_running_mean():
    x, mask = 3 + tokens(3, 20, 24, dtype=torch.float64), padding()
    gate = nn.GroupedAveragePooling(24, 4, center=True).double()
    real = x[~mask].numpy()
    got = gate(x, ~mask)[~mask]
    np.testing.assert_allclose(got, rt.affinity(real, 4, center=True), atol=1e-13)
    np.testing.assert_allclose(gate.mean, real.mean(0), rtol=1e-13)
    gate(x + 1, ~mask)
    np.testing.assert_allclose(gate.mean, real.mean(0) + 0.1, rtol=1e-13)
    before = gate.mean.clone()
    gate(x, torch.zeros_like(mask))
    assert torch.equal(gate.mean, before)
    gate.eval()
    alone = gate(x[:1, :1])[0, 0]
    assert torch.equal(alone, gate(x)[0, 0])
    assert torch.equal(gate.mean, before)
    twin = nn.GroupedAveragePooling(24, 4, center=True).double()
    twin.load_state_dict(gate.state_dict())
    assert torch.equal(twin.eval()(x), gate(x))


def layer(rule="resonance", *, shared=False, dropped="zero", dtype=torch.float32, **options):
    r = router(rule=rule, **options)
    experts = nn.FeedForwardExperts(24, 8, 4)
    extra = torch.nn.Linear(24, 24) if shared else None
    return nn.ResonanceMoE(r, experts, shared=extra, dropped=dropped).to(dtype)


def expert(m, i, x):
    e = m.experts
    return torch.nn.functional.gelu(x @ e.up[i] + e.up_bias[i, 0]) @ e.down[i] + e.down_bias[i, 0]


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("dropped", ["zero", "pass"])
@pytest.mark.parametrize("normalize", [False, True])
def test_layer_by_loops(rule, shared, dropped, normalize):
    m = layer(
        rule, shared=shared, dropped=dropped, normalize=normalize, dtype=torch.float64, top=2, capacity_factor=0.5
    )
    x, mask = tokens(3, 20, 24, dtype=torch.float64), padding()
    y, routing = m(x, mask, return_routing=True)
    wanted = torch.zeros_like(x)
    taken = torch.zeros(3, 20)
    for b, i, _, t in pairs(routing.assignment()):
        p = routing.probability[b, t]
        weight = p[i] / p.sort().values[-2:].sum() if normalize and rule != "expert_choice" else p[i]
        wanted[b, t] += weight * expert(m, i, x[b, t])
        taken[b, t] += 1
    assert torch.equal(taken.long(), routing.copies)
    for b in range(3):
        for t in range(20):
            if mask[b, t]:
                continue
            if dropped == "pass" and not taken[b, t]:
                wanted[b, t] = x[b, t]
            if shared:
                wanted[b, t] += m.shared(x[b, t])
    assert ((taken == 0) & ~mask).any()
    torch.testing.assert_close(y, wanted, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("rule", RULES)
def test_padding_changes_nothing(rule):
    m = layer(rule, shared=True, capacity_factor=1.0, dtype=torch.float64)
    x = tokens(2, 13, 24, dtype=torch.float64)
    longer = torch.nn.functional.pad(x, (0, 0, 0, 7), value=math.inf)
    mask = torch.arange(20).expand(2, 20) >= 13
    y, routing = m(x, return_routing=True)
    m.router.statistics.reset()
    z, padded = m(longer, mask, return_routing=True)
    torch.testing.assert_close(z[:, :13], y, rtol=1e-12, atol=1e-12)
    assert not z[:, 13:].any()
    local = torch.tensor([True, False, True, False])
    for loss in (lambda r: r.load_balance(), lambda r: r.locality(local, epsilon=0.1)):
        torch.testing.assert_close(loss(padded), loss(routing), rtol=1e-12, atol=0)
    wanted = losses.load_balance(routing.probability.flatten(0, 1), routing.expert.flatten(0, 1))
    assert torch.equal(routing.load_balance(), wanted)
    mean = routing.probability.mean((0, 1))
    share = torch.tensor([0.45, 0.05, 0.45, 0.05], dtype=torch.float64)
    kl = (mean * (mean / share).log()).sum()
    assert float(routing.locality(local, epsilon=0.1, mu=2.0)) == pytest.approx(2 * float(kl), rel=1e-12)
    assert m.router.statistics.summary()["tokens"] == 26


@pytest.mark.parametrize(("gates", "rule"), [(g, "resonance") for g in GATES] + [("linear", r) for r in RULES[:2]])
def test_gradients(gates, rule):
    m = layer(rule, gates=gates, dtype=torch.float64, top=2, capacity=2, normalize=True, statistics=False)
    m.router.temperature = 0.3
    x = tokens(1, 5, 24, dtype=torch.float64).requires_grad_()
    leaves = [p for p in m.router.parameters() if p.requires_grad]
    base = m.router.gate.mean.clone() if gates == "grap-centred" else None

    def loss(x, *_):
        if base is not None:
            m.router.gate.mean.copy_(base)
        y, routing = m(x, return_routing=True)
        return (y * torch.arange(24)).sum(), routing.load_balance(alpha=1.0)

    assert torch.autograd.gradcheck(loss, (x, *leaves), fast_mode=True)
    assert len(leaves) == (gates in ("linear", "orthogonal"))


def test_gradient_of_zero_tokens_is_zero_and_of_huge_ones_finite():
    x = torch.zeros(6, 24)
    x[1] = 1e30 * tokens(24)
    x[2] = 1e-30 * tokens(24)
    x.requires_grad_()
    r = router()
    r(x).score[0, :3].square().sum().backward()
    assert not x.grad[0].any()
    assert torch.isfinite(x.grad).all()
    assert x.grad[2].any()


@pytest.mark.parametrize("gates", GATES)
def test_autocast_leaves_the_routing_alone(gates):
    m = layer(gates=gates)
    x = tokens(2, 20, 24)
    plain = m.router(x)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y, routing = m(x, return_routing=True)
    assert routing.score.dtype == torch.float32
    assert torch.equal(routing.score, plain.score)
    assert torch.equal(routing.token, plain.token)
    assert y.dtype == torch.bfloat16
    torch.testing.assert_close(y.float(), m(x), rtol=0.05, atol=0.02)
    half = m.router(x.to(torch.bfloat16))
    assert half.score.dtype == torch.float32
    if gates in ("grap", "simplex"):
        assert torch.equal(half.score, m.router(x.to(torch.bfloat16).float()).score)


@pytest.mark.filterwarnings("error:Dynamo detected")
@pytest.mark.parametrize(
    "options", [{"mass": 0.9, "capacity_factor": 1.0}, {"rule": "token_choice"}, {"rule": "expert_choice"}]
)
def test_compiles_without_a_break(options):
    m = layer(**options, gates="grap", top=2)
    x, mask = tokens(3, 20, 24), padding()
    local = torch.arange(4) < 2

    def step(x, mask):
        y, routing = m(x, mask, return_routing=True)
        return y, routing, routing.load_balance() + routing.locality(local, epsilon=0.1)

    wanted, routing, loss = step(x, mask)
    before = m.router.statistics.summary()
    try:
        # All of the graph, without the code generator, which needs a C++ compiler and time: see test_inductor.
        compiled = torch.compile(step, fullgraph=True, backend="aot_eager")
        y, got, other = compiled(x, mask)
    except RuntimeError as error:
        if "not supported" in str(error):
            pytest.skip(f"torch.compile does not work here: {error}")
        raise
    torch.testing.assert_close(y, wanted)
    torch.testing.assert_close(other, loss)
    assert torch.equal(got.token, routing.token)
    assert m.router.statistics.summary()["tokens"] == 2 * before["tokens"]
    y.sum().backward()
    assert torch.isfinite(m.experts.up.grad).all()


@pytest.mark.filterwarnings("error:Dynamo detected")
@pytest.mark.parametrize(
    "options",
    [*({"gates": gates} for gates in ("grap-centred", "orthogonal")), {"target": 0.9, "discriminative": 0.2}],
)
def test_gates_and_the_measured_capacity_trace_whole(options):
    m, twin = layer(**options), layer(**options)
    twin.load_state_dict(m.state_dict())
    graphs = []

    def keep(graph, _):
        graphs.append(graph)
        return graph.forward

    torch._dynamo.reset()
    step = torch.compile(lambda x, mask: m(x, mask, return_routing=True), fullgraph=True, backend=keep)
    x, mask = tokens(2, 200, 24) + 0.5, padding(2, 200, (200, 130))
    sizes = []
    for k, (part, hidden) in enumerate([(x, mask)] * 3 + [(x[:, :50], mask[:, :50])]):
        if k == 2:  # the compiled layer follows the estimates when it is told to, and not before
            for one in (m, twin):
                one.router.refresh()
        (y, routing), (wanted, plain) = step(part, hidden), twin(part, hidden, return_routing=True)
        torch.testing.assert_close(y, wanted)
        assert torch.equal(routing.token, plain.token)
        sizes.append(plain.token.shape[-1])
    moves = "target" in options
    assert sizes[0] == sizes[1]
    assert (sizes[1] != sizes[2]) == moves
    assert len(graphs) == (3 if moves else 2)


@pytest.mark.parametrize(
    ("rule", "fused"), [*((rule, False) for rule in RULES), ("resonance", True), ("token_choice", True)]
)
def test_nothing_waits_for_the_device(rule, fused):
    # Tensors of the meta device have no values: whoever reads one raises.
    with torch.device("meta"):
        options = {"normalize": True, "statistics": False, "fused": True} if fused else {}
        r = nn.ResonanceRouter(24, 4, rule=rule, top=2, **options)
        m = nn.ResonanceMoE(r, nn.FeedForwardExperts(24, 8, 4))
        y, routing = m(torch.ones(3, 20, 24), torch.zeros(3, 20, dtype=torch.bool), return_routing=True)
    assert y.shape == (3, 20, 24)
    assert routing.token.shape == (3, 4, 13)
    if not fused:
        local = torch.arange(4, device="meta") < 2
        assert (routing.load_balance() + routing.locality(local, epsilon=0.1)).shape == ()
    with pytest.raises(RuntimeError):
        routing.assignment()


@pytest.mark.parametrize("rule", RULES)
def test_deterministic_mode_and_state(rule):
    torch.use_deterministic_algorithms(True)
    try:
        results = []
        for _ in range(2):
            m = layer(rule, gates="linear")
            y = m(tokens(3, 20, 24))
            y.square().sum().backward()
            results.append([y, *(p.grad for p in m.parameters())])
        assert all(torch.equal(a, b) for a, b in zip(*results))
    finally:
        torch.use_deterministic_algorithms(False)
    torch.manual_seed(99)
    other = nn.ResonanceMoE(nn.ResonanceRouter(24, 4, rule=rule, gates="linear"), nn.FeedForwardExperts(24, 8, 4))
    other.load_state_dict(m.state_dict())
    assert torch.equal(other(tokens(3, 20, 24)), y)
    assert not any("statistics" in name for name in m.state_dict())


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("gates", GATES)
def test_edges(rule, gates):
    m = layer(rule, gates=gates, shared=True)
    empty = m(torch.zeros(2, 0, 24))
    assert empty.shape == (2, 0, 24)
    assert m(torch.zeros(0, 24)).shape == (0, 24)
    assert m(torch.zeros(0, 5, 24)).shape == (0, 5, 24)
    hidden = m(tokens(2, 5, 24), torch.ones(2, 5, dtype=torch.bool), return_routing=True)
    assert not hidden[0].any()
    assert not hidden[1].filled.any()
    assert hidden[1].load_balance().item() == 0.0
    assert m(tokens(1, 1, 24)).isfinite().all()
    y, routing = m(torch.ones(1, 20, 24), return_routing=True)  # equal tokens: the first ones are kept
    assert y.isfinite().all()
    kept = routing.token[routing.filled].unique().tolist()
    assert kept == list(range(len(kept)))
    y, routing = m(torch.zeros(1, 20, 24), return_routing=True)
    assert y.isfinite().all()
    if rule != "expert_choice":
        assert routing.load.tolist() == [[20, 0, 0, 0]]
        assert routing.kept.tolist() == [[7, 0, 0, 0]]


@pytest.mark.parametrize("gates", ["grap", "linear"])
def test_nan_raises_or_is_dropped(gates):
    x = tokens(1, 20, 24)
    x[0, 3, 5] = math.nan
    x[0, 7, 0] = math.inf
    with pytest.raises(ValueError, match="NaN or infinite"):
        layer(gates=gates)(x)
    m = layer(gates=gates, nonfinite="drop", shared=True)
    y, routing = m(x, return_routing=True)
    bad = torch.tensor([3, 7])
    mask = torch.zeros(1, 20, dtype=torch.bool)
    mask[0, bad] = True
    assert torch.equal(routing.real, ~mask)
    torch.testing.assert_close(y, m(x.nan_to_num(), mask))
    assert not y[0, bad].any()
    (y.sum() + routing.load_balance()).backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in m.parameters())


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("top", [1, 2])
def test_statistics_by_their_definitions(rule, top):
    r = router(rule=rule, top=top, capacity_factor=0.6, discriminative=0.2)
    mask = padding()
    batches = [5 + tokens(3, 20, 24, seed=k) + 2 * tokens(3, 20, 24, seed=9) for k in range(3)]
    load, kept, score_kept, ranks, labels, vectors = np.zeros(4), np.zeros(4), [], [], [], []
    dropped = above = both = 0
    for x in batches:
        routing = r(x, mask)
        score, real = routing.score.numpy(), (~mask).numpy()
        own = np.argsort(-score, axis=-1, kind="stable")[..., :top]
        chosen = (own[..., None] == np.arange(4)).any(-2) & real[..., None]
        candidate = chosen if rule != "expert_choice" else np.broadcast_to(real[..., None], chosen.shape)
        load += candidate.sum((0, 1))
        above = above + ((score >= np.float32(0.2)) & real[..., None]).sum((0, 1))
        both = both + ((score >= np.float32(0.2)) & chosen).sum((0, 1))
        taken = set()
        for b, i, _, t in pairs(routing.assignment()):
            kept[i] += 1
            taken.add((b, t))
            score_kept.append(score[b, t, i])
            rivals = [u for u in range(20) if candidate[b, u, i]]
            better = sum((score[b, u, i], -u) > (score[b, t, i], -t) for u in rivals)
            ranks.append((better + 0.5) / len(rivals))
            labels.append(i)
            vectors.append(x[b, t].numpy())
        dropped += real.sum() - len(taken)
    got = r.statistics.summary()
    total = 3 * 33
    assert got["tokens"] == total
    assert got["drop_rate"] == pytest.approx(dropped / total, rel=1e-12)
    assert got["pair_drop_rate"] == pytest.approx(1 - kept.sum() / load.sum(), rel=1e-12)
    np.testing.assert_allclose(got["load"], load / load.sum(), rtol=1e-12)
    np.testing.assert_allclose(got["load_kept"], kept / kept.sum(), rtol=1e-12)
    share = kept / kept.sum()
    assert got["entropy_kept"] == pytest.approx(-sum(v * math.log(v) for v in share if v), rel=1e-12)
    assert got["dead_experts"] == (kept == 0).sum()
    np.testing.assert_allclose(got["q"], above / total, rtol=1e-12)
    np.testing.assert_allclose(got["h"], both / total, rtol=1e-12)
    assert got["percentile"] == pytest.approx(np.mean(ranks), rel=1e-6)
    for name, values, width in (("percentile_quantiles", ranks, 0.01), ("kept_affinity", score_kept, 0.005)):
        for a, value in got[name].items():
            exact = np.quantile(values, a, method="inverted_cdf")
            assert exact - 1e-6 <= value <= exact + width + 1e-6
    index = homogenization.calinski_harabasz(np.array(vectors, dtype=np.float64), np.array(labels))
    assert got["calinski_harabasz"] == pytest.approx(index, rel=1e-4)
    r.statistics.reset()
    assert r.statistics.summary()["tokens"] == 0
    assert math.isnan(r.statistics.summary()["drop_rate"])


@pytest.mark.parametrize("rule", RULES)
def test_measured_capacity_follows_the_laws(rule):
    r = router(rule=rule, target=0.9, discriminative=0.2)
    x, mask = tokens(3, 200, 24) + 0.5, padding(3, 200, (200, 150, 10))
    start = int(token_choice.least_capacity(0.9, 200, rt.Rates(experts=4)))
    routing = r(x, mask)
    assert routing.token.shape[-1] == start
    assert routing.filled[1].sum(-1).max() <= -(-150 * start // 200)
    real = (~mask).numpy()
    score = routing.score.numpy()[real]
    chosen = score.argmax(1)[:, None] == np.arange(4)
    q, h = (score >= 0.2).mean(0), ((score >= 0.2) & chosen).mean(0)
    found = r.measured.estimates()
    for name, value in {"load": chosen.mean(0), "false_positive": q, "candidate_tail": h, "hit": h / q}.items():
        np.testing.assert_allclose(found[name], value, rtol=1e-12)
    wanted = {
        "resonance": lambda: resonance.least_capacity(0.9, 200, rt.Rates(candidate_tail=h)),
        "expert_choice": lambda: expert_choice.least_capacity(0.9, 200, rt.Rates(false_positive=q)),
        "token_choice": lambda: token_choice.least_capacity(0.9, 200, rt.Rates(load=chosen.mean(0))),
    }[rule]()
    r.eval()
    assert r(x).token.shape[-1] == start  # until it is told to move
    r.refresh()
    assert r(x).token.shape[-1] == wanted.max()
    twin = router(rule=rule, target=0.9, discriminative=0.2).eval()
    assert twin(x).token.shape[-1] == start
    twin.load_state_dict(r.state_dict())
    assert twin(x).token.shape[-1] == wanted.max()


def test_measured_capacity_forgets():
    m = nn.MeasuredCapacity(2, target=0.9, discriminative=0.5, momentum=0.25)
    score = torch.tensor([[[0.9, 0.1], [0.1, 0.2]]])
    m.observe(score, score.argmax(-1, keepdim=True), None)
    m.observe(1 - score, (1 - score).argmax(-1, keepdim=True), None)
    # 3/4 of the first batch (2 tokens) and the second
    np.testing.assert_allclose(m.estimates()["false_positive"], [(0.75 + 1) / 3.5, 2 / 3.5])
    np.testing.assert_allclose(m.estimates()["candidate_tail"], [(0.75 + 1) / 3.5, 1 / 3.5])


class Gate(torch.nn.Module):
    def forward(self, x):
        return x[..., :4] * 2


def test_own_gates():
    x = tokens(2, 20, 24)
    routing = router(gates=Gate())(x)
    torch.testing.assert_close(routing.probability, torch.softmax(2 * x[..., :4], -1))
    with pytest.raises(ValueError, match=r"gates returned shape .* must return"):
        router(experts=5, gates=Gate())(x)


@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize("rule", ["resonance", "token_choice"])
def test_layouts_of_the_tokens(rule, fused):
    m = layer(rule, top=2, normalize=True, statistics=False, fused=fused, capacity_factor=0.7)
    x = tokens(20, 3, 48)
    for view in (
        x[..., ::2].transpose(0, 1),
        x[:, :1, 24:].transpose(0, 1).expand(3, -1, -1),
        x[5, 0, :24].expand(20, 24),
    ):
        plain = view.contiguous().requires_grad_()
        assert view.stride() != plain.stride()
        view = view.detach().requires_grad_()
        (got, routing), (wanted, same) = (m(v, return_routing=True) for v in (view, plain))
        assert torch.equal(routing.token, same.token)
        torch.testing.assert_close(got, wanted)
        one, other = (torch.autograd.grad(y.square().sum(), v)[0] for y, v in ((got, view), (wanted, plain)))
        torch.testing.assert_close(one, other)


BAD = [
    ({"dim": 25}, ValueError, "dim = 25 is not divisible by experts = 4"),
    ({"experts": 0}, ValueError, "experts = 0"),
    ({"experts": 2.5}, TypeError, "experts = 2.5"),
    ({"rule": "nearest"}, ValueError, "rule = 'nearest' must be one of"),
    ({"gates": "round"}, ValueError, "gates = 'round' must be one of"),
    ({"top": 5}, ValueError, "top = 5 .* experts"),
    ({"top": 0}, ValueError, "top = 0"),
    ({"capacity": 0}, ValueError, "capacity = 0"),
    ({"capacity": 1.5}, TypeError, "capacity = 1.5"),
    ({"capacity_factor": 0.0}, ValueError, "capacity_factor = 0.0"),
    ({"capacity_factor": math.nan}, ValueError, "capacity_factor = nan"),
    ({"capacity": 3, "capacity_factor": 1.0}, ValueError, "capacity and capacity_factor are given together"),
    ({"mass": 1.5}, ValueError, "mass = 1.5"),
    ({"mass": 0.5, "rule": "expert_choice"}, ValueError, "mass = 0.5 needs rule"),
    ({"target": 1.0}, ValueError, "target = 1.0"),
    ({"temperature": 0.0}, ValueError, "temperature = 0.0"),
    ({"discriminative": 2.0}, ValueError, "discriminative = 2.0"),
    ({"nonfinite": "ignore"}, ValueError, "nonfinite = 'ignore'"),
    ({"experts": 1, "gates": "simplex"}, ValueError, "experts = 1 must be at least 2"),
    ({"fused": True, "normalize": True}, ValueError, "fused = True needs statistics = False"),
    ({"fused": True, "statistics": False, "rule": "expert_choice"}, ValueError, "needs rule = .* and normalize = True"),
    ({"fused": True, "gates": "grap-centred", "mass": 0.5}, ValueError, "needs gates = 'grap' and .* mass = None"),
]


@pytest.mark.parametrize(("options", "kind", "message"), BAD)
def test_bad_options(options, kind, message):
    with pytest.raises(kind, match=message):
        router(**options)


def test_bad_input():
    r = router(capacity=6)
    mask = torch.zeros(20, dtype=torch.bool)
    for arguments, kind, message in [
        ((torch.ones(20, 24, dtype=torch.int64),), TypeError, "x has dtype torch.int64"),
        ((np.ones((20, 24)),), TypeError, "x is a ndarray"),
        ((torch.ones(20, 23),), ValueError, r"x has shape \(20, 23\)"),
        ((torch.ones(24),), ValueError, r"x has shape \(24,\)"),
        ((torch.ones(20, 24), mask.long()), TypeError, "padding_mask is of torch.int64"),
        ((torch.ones(20, 24), [False] * 20), TypeError, "padding_mask is of list"),
        ((torch.ones(20, 24), mask[:19]), ValueError, r"padding_mask has shape \(19,\)"),
        ((torch.ones(20, 24), mask.to("meta")), ValueError, "padding_mask is on device meta but x is on cpu"),
    ]:
        with pytest.raises(kind, match=message):
            r(*arguments)
    with pytest.raises(ValueError, match="x is on device meta but the router is on cpu"):
        router(gates="linear")(torch.ones(20, 24, device="meta"))
    with pytest.raises(ValueError, match=r"local has shape \(3,\)"):
        r(torch.ones(20, 24)).locality(torch.ones(3, dtype=torch.bool), epsilon=0.1)
    with pytest.raises(TypeError, match="router is a str but must be a torch module"):
        nn.ResonanceMoE("top", nn.FeedForwardExperts(24, 8, 4))
    with pytest.raises(ValueError, match="dropped = 'keep'"):
        nn.ResonanceMoE(r, nn.FeedForwardExperts(24, 8, 4), dropped="keep")
    with pytest.raises(ValueError, match="activation = 'tan'"):
        nn.FeedForwardExperts(24, 8, 4, activation="tan")
    with pytest.raises(ValueError, match=r"shape .* last axis must be dim = 24"):
        nn.GroupedAveragePooling(24, 4)(torch.ones(3, 5))


def test_a_rule_of_ones_own_routes():
    """Priority alone makes a router: here experts take their last candidates, as the mirror of token choice."""

    class LastFirst(rt.Rule):
        name, title = "last_first", "last first"

        def priority(self, affinity, rng=None):
            return torch.arange(affinity.shape[-2]).to(affinity)[:, None].expand(affinity.shape)

    x = torch.randn(3, 40, 24, generator=torch.Generator().manual_seed(1))
    real = torch.zeros(3, 40, dtype=torch.bool)
    real[:, :4] = True
    own, mirror = router(rule=LastFirst(), capacity=5), router(rule="token_choice", capacity=5)
    ours, theirs = own(x, real), mirror(x.flip(1), real.flip(1))
    assert torch.equal(ours.copies, theirs.copies.flip(1))
    assert torch.equal(ours.kept, theirs.kept)
    drawn = router(rule="random-keep", capacity=5)
    torch.manual_seed(0)
    counts = torch.stack([drawn(x).copies for _ in range(200)]).double().mean(0)
    assert torch.equal(drawn(x).kept, mirror(x).kept)
    assert ((counts > 0.1) & (counts <= 1)).all()  # blind to position: every token is kept now and then
    with pytest.raises(ValueError, match="rule = 'adaptive' must be resonance with mass"):
        router(rule="adaptive")
    with pytest.raises(ValueError, match="did you mean resonance"):
        router(rule="resonanse")
