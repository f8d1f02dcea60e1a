"""The orthogonal optimizer: what its steps leave untouched, its phases, its state, and what it refuses."""

import copy

import numpy as np
import pytest

from resonance_theory.systems.orthogonal_projectors import averaged_projector, input_projector, update_projector

torch = pytest.importorskip("torch")
from torch import nn  # noqa: E402

from resonance_theory.systems.orthogonal_optimizer import OrthogonalExperts  # noqa: E402


@pytest.fixture(autouse=True)
def seeded():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        yield


def experts(n=3, d=6, e=4):
    return [[nn.Linear(d, e)] for _ in range(n)]


def wrapped(layers, kind=torch.optim.Adam, **settings):
    base = kind([p for e in layers for m in e for p in m.parameters()], lr=0.05)
    return OrthogonalExperts(base, layers, **settings)


def inputs(n=3, d=6):
    """Each expert sees its own plane, all of them together all but nothing of the space."""
    frame = torch.linalg.qr(torch.randn(d, d))[0]
    return [torch.randn(32, 2) @ frame[:, 2 * i : 2 * i + 2].T for i in range(n)]


def step(optimizer, layers, seen):
    optimizer.zero_grad()
    sum((e[0](x) - 1).square().mean() for e, x in zip(layers, seen)).backward()
    optimizer.step()


@pytest.mark.parametrize("kind", [torch.optim.SGD, torch.optim.Adam])
def test_joint_steps_leave_outputs_at_the_others_inputs(kind):
    layers, seen = experts(), inputs()
    optimizer = wrapped(layers, kind, accumulate=2, orthogonal=3, ridge=1e-6, projection="joint")
    for _ in range(2):
        step(optimizer, layers, seen)
    before = copy.deepcopy(layers)
    everywhere = [torch.cat([seen[j] for j in range(3) if j != i]) for i in range(3)]
    drawn = [torch.cat([x, other]) for x, other in zip(seen, everywhere)]  # gradients in the others' planes as well
    for _ in range(3):
        step(optimizer, layers, drawn)
    for i, (new, old) in enumerate(zip(layers, before)):
        moved = new[0].weight - old[0].weight
        assert float((everywhere[i] @ moved.T).abs().max()) < 1e-4
        assert float((seen[i] @ moved.T).abs().max()) > 1e-2


def test_averaged_projectors_keep_what_the_law_says():
    layers, seen = experts(), inputs()
    optimizer = wrapped(layers, accumulate=1, orthogonal=1, ridge=1e-7)
    step(optimizer, layers, seen)
    step(optimizer, layers, seen)
    for i in range(3):
        p = optimizer.projector(i).numpy()
        rest = [input_projector(seen[j].numpy().astype(float), 1e-9) for j in range(3) if j != i]
        assert np.abs(p - averaged_projector(rest)).max() < 1e-3
        other = seen[(i + 1) % 3].numpy()
        assert np.allclose(other @ p, 0.5 * other, atol=1e-3)  # one of two others has seen it


def test_without_an_orthogonal_phase_it_is_the_base_optimizer():
    layers = experts()
    twin, seen = copy.deepcopy(layers), inputs()
    optimizer = wrapped(layers, orthogonal=0)
    base = torch.optim.Adam([p for e in twin for m in e for p in m.parameters()], lr=0.05)
    for _ in range(5):
        step(optimizer, layers, seen)
        step(base, twin, seen)
    assert all(torch.equal(a[0].weight, b[0].weight) for a, b in zip(layers, twin))


@pytest.mark.parametrize("stop", [3, 5, 8])
def test_training_goes_on_exactly_from_its_state(stop):
    """In the middle of either phase, through torch's own files."""
    layers, seen = experts(), inputs()
    optimizer = wrapped(layers, accumulate=4, orthogonal=3)
    for _ in range(stop):
        step(optimizer, layers, seen)
    twin = experts()
    for e, kept in zip(twin, layers):
        e[0].load_state_dict(kept[0].state_dict())
    other = wrapped(twin, accumulate=4, orthogonal=3)
    other.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    assert other.phase == optimizer.phase
    for _ in range(9):
        step(optimizer, layers, seen)
        step(other, twin, seen)
    assert all(torch.equal(a[0].weight, b[0].weight) for a, b in zip(layers, twin))


def test_closing_leaves_the_layers_as_they_were():
    layers = experts()
    optimizer = wrapped(layers)
    assert all(e[0]._forward_pre_hooks for e in layers)
    optimizer.close()
    assert not any(e[0]._forward_pre_hooks for e in layers)


def test_an_expert_without_tokens_holds_nobody_back():
    layers, seen = experts(), inputs()
    optimizer = wrapped(layers, accumulate=1, orthogonal=1)
    for _ in range(2):
        step(optimizer, layers[:2], seen[:2])
    assert np.allclose(optimizer.projector(0).numpy() @ seen[1].numpy().T, 0.5 * seen[1].numpy().T, atol=1e-2)
    assert torch.isfinite(layers[2][0].weight).all()


def test_wrong_arguments_are_named():
    layers = experts()
    base = torch.optim.SGD([p for e in layers for m in e for p in m.parameters()], lr=0.1)
    for change, error, said in (
        ({"experts": layers[:1]}, ValueError, "experts holds 1 but must hold at least 2"),
        ({"experts": [layers[0], [nn.ReLU()]]}, TypeError, r"experts\[1\] holds a ReLU"),
        ({"experts": [layers[0], [nn.Linear(2, 2)]]}, ValueError, r"experts\[1\] has layers of shapes"),
        ({"accumulate": 0}, ValueError, "accumulate = 0"),
        ({"ridge": 0.0}, ValueError, "ridge = 0"),
        ({"projection": "mean"}, ValueError, "projection = 'mean' must be one of average, joint"),
        ({"optimizer": 3}, TypeError, "optimizer is a int"),
    ):
        with pytest.raises(error, match=said):
            OrthogonalExperts(**({"optimizer": base, "experts": layers} | change))
    assert not layers[0][0]._forward_pre_hooks  # nothing half-done
    for call, said in (
        (lambda: input_projector([1.0]), r"x has shape \(1,\)"),
        (lambda: input_projector([[1.0]], 0), "ridge = 0"),
        (lambda: update_projector(np.eye(2), [1.0]), r"projector has shape \(2, 2\) and x \(1,\)"),
        (lambda: averaged_projector(np.eye(2)), r"projectors has shape \(2, 2\)"),
    ):
        with pytest.raises(ValueError, match=said):
            call()


def test_projectors_of_no_rows_huge_and_tiny_inputs():
    assert np.array_equal(input_projector(np.zeros((0, 3))), np.eye(3))
    assert np.allclose(input_projector([[1e150, 0.0]]), [[0, 0], [0, 1]])
    assert np.allclose(input_projector([[1e-200, 0.0]]), np.eye(2))
