"""What the studies share: settings, counts, chunks; and that no study needs another."""

import ast
from dataclasses import dataclass

import pytest

from resonance_theory.evidence.studies.study import folder, studies
from simulations import _sampling, _training
from tests.test_architecture import modules


@dataclass(frozen=True, kw_only=True)
class Some:
    steps: int
    rate: float = 0.5


def test_an_arm_takes_from_the_table_what_its_settings_name():
    table = {"steps": 3, "level": 0.01}
    assert _training.parameters(Some, table) == {"steps": 3}  # what it does not say stays out of the record
    assert _training.parameters(Some, table, rate=0.1, steps=4) == {"steps": 4, "rate": 0.1}
    for wrong in ({"rate": 0.1}, {"steps": 3, "raet": 0.1}):
        with pytest.raises(TypeError, match=r"steps|raet"):
            _training.parameters(Some, {}, **wrong)


def test_a_training_is_called_by_keywords_and_reports_whole_numbers():
    @_training.takes(Some)
    def train(rng, runs, s):
        return _training.counts([{"a": s.steps / 7, "b": run} for run in range(runs)], 100)

    assert train(None, 2, steps=1) == {"a/0": 14, "b/0": 0, "a/1": 14, "b/1": 100}
    assert train.__qualname__.endswith("train")  # by which a task finds it
    assert _training.at(5, [0, 5], {"a": 1}) == {"a @end": 1}
    assert _training.at(0, [0, 5], {"a": 1}) == {"a @0": 1}


@pytest.mark.parametrize(("trials", "numbers", "sizes"), [(7, 10, [3, 3, 1]), (2, 100, [1, 1]), (3, 1, [3])])
def test_chunks_fit_and_add_up(trials, numbers, sizes):
    assert list(_sampling.chunks(trials, numbers, 30)) == sizes


def others(source):
    """Modules of simulations that a source imports and that are no helpers of studies."""
    found = [name for name in modules(ast.parse(source)) if name.startswith("simulations.")]
    return [name for name in found if not name.split(".")[1].startswith("_")]


@pytest.mark.parametrize("name", studies())
def test_a_study_stands_alone(name):
    """It can be read, changed or deleted without another study."""
    assert not others((folder("simulations") / f"{name}.py").read_text())


def test_an_import_of_another_study_is_seen():
    assert others("def f():\n    from simulations import evolution, _rules") == ["simulations.evolution"]
    assert others("from simulations.evolution import rates") == ["simulations.evolution.rates"]
