"""The engine: the same totals whoever draws them, and nothing lost to a kill, a half line or a bad file."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from io import StringIO
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from threadpoolctl import threadpool_info, threadpool_limits

from resonance_theory import cli
from resonance_theory.evidence.sampling import SamplerError, Store, Tally, Task, generator, run
from resonance_theory.evidence.sampling import store as store_module
from resonance_theory.evidence.sampling import task as task_module
from resonance_theory.evidence.sampling.progress import Progress

ROOT = Path(__file__).resolve().parents[1]


def coin(rng, trials, *, p, slow=0.0):
    time.sleep(slow)
    return {"heads": int(np.count_nonzero(rng.random(trials) < p))}


def threads(rng, trials):
    """How many threads each library of linear algebra has; the variables are read by those that load later."""
    pools = {f"{pool['user_api']} {pool['filepath']}": pool["num_threads"] for pool in threadpool_info()}
    torch = {"torch": sys.modules["torch"].get_num_threads()} if "torch" in sys.modules else {}
    return {**pools, **torch, "OMP_NUM_THREADS": int(os.environ["OMP_NUM_THREADS"])}


def broken(rng, trials, *, kind):
    if kind == "raise":
        raise ValueError("the sampler is broken")
    if kind == "die":
        os.kill(os.getpid(), signal.SIGKILL)
    return {"heads": {"half": 0.5, "negative": -1, "bool": True}[kind]}


def task(name="coin", p=0.3, slow=0.0, **changes):
    parts = {
        "function": "tests.test_montecarlo:coin",
        "parameters": {"p": p, "slow": slow},
        "block_size": 1000,
        "seed": 7,
    }
    parts |= changes
    return Task(name, **parts)


def totals(results):
    return sorted((key, tally.trials, dict(tally.counts)["heads"]) for key, tally in results.items())


# --- streams and tasks ------------------------------------------------------------------------------------------------


def test_streams_are_addressed():
    first = generator(1, "a", 0).random(4)
    assert np.array_equal(first, generator(1, "a", 0).random(4))
    for other in (generator(2, "a", 0), generator(1, "b", 0), generator(1, "a", 1)):
        assert not np.array_equal(first, other.random(4))
    # a change of the addressing would silently change every stored result: these values are part of the format
    assert first[:2] == pytest.approx(EXPECTED, rel=1e-15)


EXPECTED = [0.7259032097340148, 0.856466840753813]


def test_neighbouring_streams_are_distinct_and_uncorrelated():
    addresses = [(seed, name, block) for seed in range(4) for name in ("a", "b", "aa", "") for block in range(16)]
    draws = np.array([generator(*address).standard_normal(1000) for address in addresses])
    assert len({row.tobytes() for row in draws}) == len(addresses)
    correlation = np.corrcoef(draws)[np.triu_indices(len(draws), 1)]
    # 32,640 pairs of standard deviation 1/sqrt(1000): 6.5 of them is a false alarm below 1e-5
    assert np.abs(correlation).max() < 6.5 / np.sqrt(1000)
    assert abs(np.std(correlation) * np.sqrt(1000) - 1) < 0.02


def test_task_ids_are_strong():
    base = task()
    assert base.id == task().id
    changed = [
        task(name="other"),
        task(p=0.31),
        task(block_size=999),
        task(seed=8),
        task(function="tests.test_montecarlo:broken"),
    ]
    assert len({base.id, *(t.id for t in changed)}) == 6


def test_task_ids_know_the_code(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    ids = []
    for code in (
        "def f(rng, trials): return {}",
        "def f(rng, trials): return {} # changed",
        "def f(rng, trials): return {}",
    ):
        (tmp_path / "some_sampler.py").write_text(code)
        task_module._source.cache_clear()
        ids.append(task(function="some_sampler:f").id)
    assert ids[0] == ids[2] != ids[1]


def test_a_task_does_not_follow_its_callers_parameters():
    parameters = {"p": 0.3, "more": [1]}
    one = task(parameters=parameters)
    before = one.id
    parameters["more"].append(2)
    assert one.parameters == {"p": 0.3, "more": [1]}
    assert replace(one).id == before


@pytest.mark.parametrize(("change", "words"), [({"block_size": 0}, "block_size = 0"), ({"seed": -1}, "seed = -1")])
def test_bad_tasks(change, words):
    with pytest.raises(ValueError, match=words):
        task(**change)


counts = st.dictionaries(st.sampled_from("abc"), st.integers(0, 10**30))


@given(st.lists(st.tuples(st.integers(0, 10**30), counts), max_size=6), st.randoms())
def test_tallies_add_in_any_order(parts, random):
    tallies = [Tally(n, c) for n, c in parts]
    shuffled = list(tallies)
    random.shuffle(shuffled)
    assert sum(tallies, Tally()) == sum(shuffled, Tally())
    assert Tally.from_json(json.loads(json.dumps(sum(tallies, Tally()).to_json()))) == sum(tallies, Tally())


BAD_TALLIES = [None, {}, {"trials": 1}, {"trials": -1, "counts": {}}, {"trials": 1, "counts": {"a": 0.5}},
               {"trials": True, "counts": {}}, {"trials": 1, "counts": []}]  # fmt: skip


@pytest.mark.parametrize("record", BAD_TALLIES)
def test_bad_tallies(record):
    with pytest.raises(ValueError, match="tally"):
        Tally.from_json(record)


# --- engine -----------------------------------------------------------------------------------------------------------


def test_totals_do_not_depend_on_workers():
    tasks = [task("a"), task("b", p=0.9)]
    alone = totals(run(tasks, 5))
    assert alone == totals(run(tasks, 5, workers=2)) == totals(run(tasks, 5, workers=3))
    assert [t[1] for t in alone] == [5000, 5000]
    assert alone != totals(run([task("a", seed=8), task("b", p=0.9, seed=8)], 5))


def test_blocks_can_differ_by_task():
    a, b = task("a"), task("b")
    result = run([a, b], {a.id: 1, b.id: 3})
    assert (result[a.id].trials, result[b.id].trials) == (1000, 3000)
    with pytest.raises(ValueError, match="same task twice"):
        run([a, a], 1)


def test_sizes_beyond_memory_are_one_sentence():
    with pytest.raises(SamplerError, match=r"coin, block 0: Unable to allocate .* trials a block, .* must be fewer"):
        run([task(block_size=2**55)], 1)


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("raise", "bad, block 0: ValueError: the sampler is broken"),
        ("half", "block 0: .*heads = 0.5"),
        ("negative", "-1"),
        ("bool", "True"),
    ],
)
def test_a_broken_sampler_is_named(kind, words, workers):
    bad = Task("bad", "tests.test_montecarlo:broken", {"kind": kind}, 10)
    with pytest.raises(SamplerError, match=words):
        run([bad], 5, workers=workers)  # every block fails: the first is named, whichever worker is faster


def test_blocks_under_way_are_kept_when_another_fails(tmp_path):
    slow, bad = task("slow", slow=0.5), Task("bad", "tests.test_montecarlo:broken", {"kind": "raise"}, 10)
    with Store(tmp_path / "s", resume=False) as store, pytest.raises(SamplerError, match="bad, block 0"):
        run([slow, bad], 1, workers=2, store=store)
    with Store(tmp_path / "s", resume=True) as store:
        assert store.blocks == {slow.id: {0: slow.sample(0)}}


def test_a_dead_worker_is_named_and_nothing_is_lost(tmp_path):
    good, bad = task("good"), Task("bad", "tests.test_montecarlo:broken", {"kind": "die"}, 10)
    with Store(tmp_path / "s", resume=False) as store:
        run([good], 3, store=store)
        with pytest.raises(SamplerError, match=r"a worker process died .* at bad, block 0"):
            run([bad], 2, workers=2, store=store)
    with Store(tmp_path / "s", resume=True) as store:
        assert len(store.blocks[good.id]) == 3


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"workers": 0}, "workers = 0"),
        ({"workers": 1.5}, "workers = 1.5"),
        ({"blocks": -1}, "blocks = -1"),
        ({"blocks": "many"}, "blocks = 'many'"),
        ({"blocks": {}}, "no entry for the task coin"),
    ],
)
def test_bad_arguments_of_a_run(change, words):
    with pytest.raises((ValueError, TypeError), match=words):
        run([task()], **{"blocks": 1, **change})


@pytest.mark.parametrize("workers", [1, 2])
def test_samplers_have_one_thread_and_the_process_keeps_its_own(monkeypatch, workers):
    torch = pytest.importorskip("torch", reason="looks at its threads")
    before = torch.get_num_threads()
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    torch.set_num_threads(2)
    try:
        with threadpool_limits(2):
            counts = (
                run([Task("probe", "tests.test_montecarlo:threads", {}, 1)], 2, workers=workers).popitem()[1].counts
            )
            assert torch.get_num_threads() == 2
            assert {pool["num_threads"] for pool in threadpool_info()} == {2}
    finally:
        torch.set_num_threads(before)
    assert len(counts) >= 2
    assert set(counts.values()) == {2}  # one in each of two blocks
    assert os.environ["OMP_NUM_THREADS"] == "7"


def trained(rng, trials):
    """Rounded sums of a gradient, as a training would count them: the last digits depend on how sums are grouped."""
    import torch

    x = torch.from_numpy(rng.standard_normal((300_000, 3))).float().requires_grad_()
    (x.exp().sum() ** 2 * x.cos().sum()).backward()
    return {"sum": abs(int(x.grad.double().sum().item() * 1e3)), "loss": int(x.exp().sum().item() * 1e6)}


def test_training_totals_do_not_depend_on_workers_or_threads():
    torch = pytest.importorskip("torch", reason="looks at its threads")
    one, before = Task("trained", "tests.test_montecarlo:trained", {}, 1), torch.get_num_threads()
    direct = {}
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            direct[threads] = trained(generator(0, "trained", 0), 1)
            assert one.sample(0).counts == direct[1]
        assert direct[1] != direct[2]  # the sampler does feel the threads
    finally:
        torch.set_num_threads(before)
    assert run([one], 2) == run([one], 2, workers=2)


def test_an_interruption_keeps_the_blocks_under_way(tmp_path):
    def interrupt(_, total):
        if total.trials == 1000:
            raise KeyboardInterrupt

    one = task(slow=0.01)
    with Store(tmp_path / "s", resume=False) as store, pytest.raises(KeyboardInterrupt):
        run([one], 40, workers=2, store=store, on_block=interrupt)
    with Store(tmp_path / "s", resume=True) as store:
        assert 1 < len(store.blocks[one.id]) < 40
        assert run([one], 40, store=store) == run([one], 40)


# --- store ------------------------------------------------------------------------------------------------------------


def test_resume_runs_only_what_is_missing(tmp_path):
    whole = run([task()], 6)
    with Store(tmp_path / "s", resume=False) as store:
        run([task()], 2, store=store)
    seen = []
    with Store(tmp_path / "s", resume=True) as store:
        resumed = run([task()], 6, store=store, on_block=lambda t, total: seen.append(total.trials))
    assert resumed == whole
    assert seen == [2000, 3000, 4000, 5000, 6000]  # what was stored counts at once, then block by block


def test_a_store_is_never_overwritten(tmp_path):
    with Store(tmp_path / "s", resume=False) as store:
        run([task()], 1, store=store)
    before = (tmp_path / "s").read_bytes()
    with pytest.raises(ValueError, match="already holds results: give --resume"):
        Store(tmp_path / "s", resume=False)
    assert (tmp_path / "s").read_bytes() == before


def test_every_cut_of_the_file_resumes_to_the_same_totals(tmp_path):
    path = tmp_path / "s"
    with Store(path, resume=False) as store:
        whole = run([task()], 3, store=store)
    content = path.read_bytes()
    for cut in [*range(0, len(content), 37), len(content) - 1]:
        path.write_bytes(content[:cut])
        with Store(path, resume=True) as store:
            assert run([task()], 3, store=store) == whole
        lines = path.read_bytes().splitlines()
        assert len(lines) == 5  # header, task and three blocks: the half line is gone, nothing is twice
        assert all(json.loads(line) for line in lines)


def forged(content, line=-1, **changes):
    """A line of the store with other fields and a fitting checksum."""
    return store_module._line(json.loads(content.splitlines()[line])["record"] | changes)


def one_more(content):
    tally = json.loads(content.splitlines()[-1])["record"]["tally"]
    return forged(content, tally=tally | {"counts": {"heads": tally["counts"]["heads"] + 1}})


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda c: c.replace(b'"trials": 1000', b'"trials": 1001'), "checksum differs"),
        (lambda c: c.replace(b"\n", b"\ngarbage\n", 1), "line 2"),
        (lambda c: b"hello\n" + c, "line 1"),
        (lambda c: b"hello", "line 1"),
        (lambda c: c + b"hello", "line 6"),
        (lambda c: c + b"[" * 100_000 + b"\n", "line 6"),
        (lambda c: c + b"\n", "line 6"),
        (lambda c: c.replace(b'{"crc"', b"\x00\x00\x00", 1), "line 1"),
        (lambda c: c + c.splitlines(keepends=True)[-1], None),  # the same block twice is no harm
        (lambda c: c + one_more(c), "block 2 differs"),
        (lambda c: c + forged(c, block=0.5), "block = 0.5"),
        (lambda c: c + forged(c, block="0"), "block = '0'"),
        (lambda c: c + forged(c, block=True), "block = True"),
        (lambda c: c + forged(c, block=-1), "block = -1"),
        (lambda c: c + forged(c, block=9).replace(b"9", b"Infinity"), "line 6"),
        (lambda c: c + forged(c, block=9, tally={"trials": 999, "counts": {}}), "999 trials where its task has 1000"),
        (lambda c: c + forged(c, block=9, task="other"), "before the description"),
        (lambda c: c + forged(c, 1, block_size=10), "does not belong to its description"),
        (lambda c: c + forged(c, 0, versions=[]), "line 6"),
        (lambda c: b"\xff\xfe\n" + c, "line 1"),
        (lambda c: c.replace(b"store 1", b"store 9"), "line 1"),
        (lambda c: b'{"crc": 1, "record": []}\n', "line 1"),
    ],
)
def test_damage_is_refused_and_left_alone(tmp_path, damage, words):
    path = tmp_path / "s"
    with Store(path, resume=False) as store:
        run([task()], 3, store=store)
    bad = damage(path.read_bytes())
    path.write_bytes(bad)
    if words is None:
        with Store(path, resume=True) as store:
            assert run([task()], 3, store=store) == run([task()], 3)
        return
    with pytest.raises(ValueError, match=words) as caught:
        Store(path, resume=True)
    assert "left as it is" in str(caught.value)
    assert path.read_bytes() == bad


def test_unwritable_and_busy_stores(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for special in (tmp_path, tmp_path / "pipe", "/dev/zero", "/dev/full", ""):
        with pytest.raises(ValueError, match="must be a regular file"):
            Store(special, resume=True)
    with pytest.raises(ValueError, match="cannot be written"):
        Store(tmp_path / "no" / "such", resume=True)
    with Store(tmp_path / "s", resume=False), pytest.raises(ValueError, match="in use by another process"):
        Store(tmp_path / "s", resume=True)


def test_versions_are_recorded_and_a_change_is_noted(tmp_path, monkeypatch):
    def headers():
        records = [json.loads(line)["record"] for line in (tmp_path / "s").read_bytes().splitlines()]
        return [record["versions"] for record in records if "format" in record]

    def go_on():
        with Store(tmp_path / "s", resume=True) as store:
            run([task()], len(store.blocks.get(task().id, {})) + 1, store=store)

    go_on()
    go_on()
    assert headers() == [store_module.versions()]
    monkeypatch.setattr(store_module, "versions", lambda: {"numpy": "99"})
    go_on()
    go_on()
    assert headers()[1:] == [{"numpy": "99"}]
    assert {"numpy", "scipy", "torch", "numba", "python", "platform"} < headers()[0].keys()
    with Store(tmp_path / "s", resume=True) as store:
        assert store.other_versions([task().id]) == headers()[:1]
        assert store.other_versions(["another"]) == []
    described = [line for line in (tmp_path / "s").read_bytes().splitlines() if b'"function"' in line]
    assert len(described) == 1
    assert json.loads(described[0])["record"] == {"task": task().id, **task().describe()}


FULL_DISK = """
import resource, sys
from resonance_theory.evidence.sampling import Store
from tests.test_montecarlo import run, task
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]),) * 2)
try:
    with Store(sys.argv[1], resume=True) as store:
        run([task()], 50, store=store)
except OSError as problem:
    print(problem)
"""


def test_a_full_disk_leaves_whole_lines(tmp_path):
    path = tmp_path / "s"
    for limit in (1000, 1001, 1500):  # the limit of a file's size stands in for the disk
        command = [sys.executable, "-c", FULL_DISK, str(path), str(limit)]
        done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT)
        assert "cannot be written (" in done.stdout
        assert "finished blocks are kept" in done.stdout
        content = path.read_bytes()
        assert content.endswith(b"\n")
        assert 0 < len(content) <= limit
    with Store(path, resume=True) as store:
        assert store.cut == 0
        assert len(store.blocks[task().id]) > 1
        assert run([task()], 50, store=store) == run([task()], 50)


PROGRAM = """
import sys
from resonance_theory.evidence.sampling import Store, Task, run
task = Task("coin", "tests.test_montecarlo:coin", {"p": 0.3, "slow": 0.03}, 1000, 7)
if __name__ == "__main__":
    with Store(sys.argv[1], resume=True) as store:
        total = run([task], 30, workers=int(sys.argv[2]), store=store)[task.id]
    print(total.trials, total.counts["heads"])
"""


@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_killed_run_resumes_to_the_same_totals(tmp_path, workers):
    script = tmp_path / "program.py"
    script.write_text(PROGRAM)
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}

    def start(store):
        return subprocess.Popen(
            [sys.executable, str(script), str(store), workers], stdout=subprocess.PIPE, text=True, env=environment,
            start_new_session=True,
        )  # fmt: skip

    undisturbed = start(tmp_path / "whole").communicate(timeout=60)[0]
    assert undisturbed.startswith("30000 ")
    killed = start(tmp_path / "cut")
    wait_for(lambda: (tmp_path / "cut").exists() and (tmp_path / "cut").read_bytes().count(b"\n") >= 4)
    os.killpg(killed.pid, signal.SIGKILL)
    killed.communicate()
    stored = (tmp_path / "cut").read_bytes().count(b"\n")
    assert 4 <= stored < 32  # it was killed in the middle
    assert start(tmp_path / "cut").communicate(timeout=60)[0] == undisturbed


TORCHRUN = {"RANK": "1", "WORLD_SIZE": "2", "MASTER_ADDR": "localhost", "MASTER_PORT": "29500"}


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (["RANK"], "RANK = '1' comes without WORLD_SIZE"),
        (["WORLD_SIZE"], "WORLD_SIZE = '2' comes without RANK"),
        (["RANK", "WORLD_SIZE"], "WORLD_SIZE = 2 comes without MASTER_ADDR and MASTER_PORT"),
        (["RANK", "WORLD_SIZE", "MASTER_ADDR"], "WORLD_SIZE = 2 comes without MASTER_PORT"),
        ({"RANK": "2"}, "RANK = 2 must be less than WORLD_SIZE = 2"),
        ({"RANK": "first"}, "RANK = 'first' must be a whole number of at least 0"),
        ({"WORLD_SIZE": "0"}, "must be less than WORLD_SIZE = 0"),
    ],
)
def test_half_a_distributed_environment_is_refused_before_anything_is_drawn(
    monkeypatch, capsys, tmp_path, given, words
):
    for name, value in (TORCHRUN | given if isinstance(given, dict) else {k: TORCHRUN[k] for k in given}).items():
        monkeypatch.setenv(name, value)
    drawn = tmp_path / "pids"
    with pytest.raises(ValueError, match=words):
        run([Task("pids", "tests.test_montecarlo:pid", {"file": str(drawn)}, 10)], 1)
    for command in (["simulate", "router_scale"], ["simulate", "--all"], ["verify", "exchangeability_identity"]):
        assert cli.main([*command, "--json", str(tmp_path / "o.json")]) == 2
        said = capsys.readouterr().err.splitlines()
        assert len(said) == 1
        assert words in said[0]
    assert list(tmp_path.iterdir()) == []


STOPPED = {
    "study": """
import sys
from resonance_theory.evidence.sampling import Store, Task, run
if __name__ == "__main__":
    run([Task("pids", "tests.test_montecarlo:pid", {"file": sys.argv[1]}, 1000, 7)], 10**6, workers=2)
""",
    "claims": """
import sys
from resonance_theory import cli
from resonance_theory.evidence.claims import ledger
from tests import test_montecarlo
ledger._record = test_montecarlo.endless_record
if __name__ == "__main__":
    sys.exit(cli.main(["verify", "--workers", "2", sys.argv[1]]))
""",
}


def pid(rng, trials, *, file):
    with open(file, "a") as stream:
        stream.write(f"{os.getpid()}\n")
    time.sleep(0.05)
    return {}


def endless_record(claim_id, *_):
    """Stands in for the evaluation of a claim that takes an hour."""
    pid(None, 0, file=os.environ["PIDS"])
    time.sleep(3600)


def alive(number):
    try:
        state = Path(f"/proc/{number}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state not in "ZX"


@contextlib.contextmanager
def two_busy_workers(tmp_path, kind):
    """A process in a group of its own whose two workers are at work; their numbers."""
    script, listed = tmp_path / "program.py", tmp_path / "pids"
    script.write_text(STOPPED[kind])
    listed.touch()
    parent = subprocess.Popen(
        [sys.executable, str(script), str(listed) if kind == "study" else "e"],
        env={**os.environ, "PYTHONPATH": str(ROOT), "PIDS": str(listed)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_DFL),  # nohup leaves it ignored
    )
    try:
        wait_for(lambda: len(set(listed.read_text().split())) >= 2)
        yield parent, [int(number) for number in set(listed.read_text().split())]
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(parent.pid, signal.SIGKILL)
        parent.communicate()


def ended(parent, workers):
    """Exit status and last words of a process that must end now, with its workers."""
    start = time.monotonic()
    said = parent.communicate(timeout=20)[1]
    wait_for(lambda: not any(map(alive, workers)))
    assert time.monotonic() - start < 20
    return parent.returncode, said.splitlines()


needs_proc = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="reads /proc")


@needs_proc
@pytest.mark.parametrize("kind", STOPPED)
@pytest.mark.parametrize("sent", [signal.SIGKILL, signal.SIGTERM, signal.SIGHUP])
def test_workers_do_not_outlive_a_killed_parent(tmp_path, kind, sent):
    with two_busy_workers(tmp_path, kind) as (parent, workers):
        parent.send_signal(sent)  # the parent alone
        assert ended(parent, workers)[0] == -sent


@needs_proc
@pytest.mark.parametrize("kind", STOPPED)
@pytest.mark.parametrize("group", [False, True])
def test_an_interruption_stops_at_once(tmp_path, kind, group):
    with two_busy_workers(tmp_path, kind) as (parent, workers):
        os.killpg(parent.pid, signal.SIGINT) if group else parent.send_signal(signal.SIGINT)
        status, said = ended(parent, workers)
    if kind == "claims":
        assert status == 130
        assert len(said) == 1
        assert said[0].startswith("resonance verify: interrupted")
    assert sum("Traceback" in line for line in said) == (kind == "study")  # the parent's, none of a worker's


@needs_proc
def test_a_verification_goes_on_after_a_worker_is_killed(tmp_path):
    with two_busy_workers(tmp_path, "claims") as (_, workers):
        for _ in range(2):  # the pool's, then that of the first claim to be run alone
            seen = set((tmp_path / "pids").read_text().split())
            os.kill(workers[0], signal.SIGKILL)
            wait_for(lambda seen=seen: set((tmp_path / "pids").read_text().split()) - seen)
            workers = [int(pid) for pid in set((tmp_path / "pids").read_text().split()) - seen]
        assert alive(workers[0])


def wait_for(condition):
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


# --- progress ---------------------------------------------------------------------------------------------------------


class Terminal(StringIO):
    def isatty(self):
        return True


def shown(stream, **options):
    one = task()
    display = Progress(
        lambda t, total: f"{t.name} {total.counts['heads'] / total.trials:.3f}", {one.id: 4000}, stream=stream
    )
    for name, value in options.items():
        setattr(display, name, value)
    total = run([one], 4, on_block=display)[one.id]
    display.close()
    return stream.getvalue() if stream else "", total


def test_progress_shows_the_estimate():
    text, total = shown(StringIO(), every=0.0)
    lines = text.splitlines()
    assert len(lines) == 4
    assert lines[0].startswith("1,000 of 4,000 trials (25 %)")
    assert lines[-1].endswith(f"coin {total.counts['heads'] / 4000:.3f}")
    assert shown(StringIO())[0] == ""  # a short run says nothing
    assert shown(None, every=0.0)[0] == ""
    drawn, _ = shown(Terminal(), every=0.0)
    assert drawn.count("\033[2A") == 4  # redrawn in place three times, then cleared
    assert drawn.endswith("\033[J")


def test_time_left_counts_only_fresh_trials():
    one = task()
    stream = StringIO()
    display = Progress(lambda *_: "", {one.id: 10_000}, stream=stream, every=0.0)
    display.start -= 5  # five seconds ago
    display(one, Tally(8000, {}))
    display(one, Tally(9000, {}))
    assert "90 %" in stream.getvalue()
    assert stream.getvalue().splitlines()[-1].split(", ")[-1].startswith("5 s left")
