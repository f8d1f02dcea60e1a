"""Where a record comes from: the commit is the package's own, never that of a project around it."""

import subprocess
from datetime import UTC, datetime, timedelta

import numpy as np

from resonance_theory import provenance


def git(folder, *arguments):
    identity = ["-c", "user.name=a", "-c", "user.email=a@b"]
    subprocess.run(["git", "-C", str(folder), *identity, *arguments], check=True, capture_output=True)


def test_what_it_says():
    made = provenance.provenance()
    age = datetime.now(UTC) - datetime.fromisoformat(made["time"])
    assert timedelta(seconds=-1) <= age < timedelta(minutes=5)
    assert made["packages"]["numpy"] == np.__version__


def test_commit(tmp_path):
    git(tmp_path, "init")
    (tmp_path / "a").write_text("1")
    git(tmp_path, "add", "a")
    assert provenance._commit(tmp_path) == (None, None)  # nothing is committed yet
    git(tmp_path, "commit", "-m", "a")
    commit, dirty = provenance._commit(tmp_path)
    assert (len(commit), dirty) == (40, False)
    (tmp_path / "a").write_text("2")
    assert provenance._commit(tmp_path) == (commit, True)
    (tmp_path / "site-packages").mkdir()
    assert provenance._commit(tmp_path / "site-packages") == (None, None)


def test_without_git(tmp_path, monkeypatch):
    (tmp_path / ".git").mkdir()
    monkeypatch.setenv("PATH", "")
    assert provenance._commit(tmp_path) == (None, None)
