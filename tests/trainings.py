"""Tiny trainings of a study's arms, and what is asked of every one of them."""

from resonance_theory.evidence.sampling import generator
from resonance_theory.evidence.studies.study import settings_of


def train(arm, runs=2, seed=0, **change):
    """Counts of an arm with some of its parameters changed."""
    return arm.train(generator(seed, "t", 0), runs, **(arm.parameters | change))


def of_run(counts, per, run=0):
    """Values of one run by metric."""
    return {key.rpartition("/")[0]: count / per for key, count in counts.items() if key.endswith(f"/{run}")}


def assert_repeats(arm, counts, runs=2):
    """A run is a function of its stream."""
    assert train(arm, runs) == counts
    assert train(arm, runs, seed=1) != counts


def assert_measured(name, counts):
    """The TOML of a study speaks of arms, metrics and checkpoints that there are; a typing error in it is found here, not
    after the runs. counts: those of one tiny run of every arm, by label."""
    for full in (False, True):
        settings = settings_of(name, full=full)
        checkpoints = settings["checkpoints"]
        assert checkpoints == sorted({0, *checkpoints})
        for row in [*settings.get("premises", []), *settings["comparisons"]]:
            for side, metric in (("first", row["metric"]), ("second", row.get("against", row["metric"]))):
                base, at, step = metric.partition(" @")
                assert not at or step in {"end", *map(str, checkpoints[:-1])}, row
                known = f"{base} @{'end' if step == 'end' else 0}" if at else base
                assert side not in row or f"{known}/0" in counts[row[side]], row
