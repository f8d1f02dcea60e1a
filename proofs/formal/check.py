"""Compile the Coq proofs in this folder and list what they rest on: `make formal`.

Needs Coq 8.16 or newer with Coquelicot and Interval (Debian: coq libcoq-coquelicot libcoq-interval); says so and does
nothing where `coqc` is absent. Claims name their theorems in `formal`.

Accepted axioms. Over the rationals: none. Over the reals: those of Coq's own real numbers. `numeric_lemmas.v`
computes with Coq's kernel integers, and may rest on their specification too.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

FOLDER = Path(__file__).resolve().parent
REALS = {
    "ClassicalDedekindReals.sig_not_dec",
    "ClassicalDedekindReals.sig_forall_dec",
    "FunctionalExtensionality.functional_extensionality_dep",
    "Classical_Prop.classic",
}
INTEGERS = ("PrimInt63.", "Uint63.")
# words by which a file could assume what it should prove
ASSUMING = re.compile(
    r"\b(Admitted|admit|give_up|Abort|Axioms?|Parameters?|Conjecture|Hypothes[ie]s|Variables?|Context|Declare|"
    r"Unset\s+Guard|bypass_check|native_compute|Primitive|Extract)\b"
)
STATEMENT = re.compile(r"^Theorem\s+(\w+)", re.M)


def files() -> list[Path]:
    return sorted(FOLDER.glob("*.v"))


def without_comments(text: str) -> str:
    while (shorter := re.sub(r"\(\*(?:(?!\(\*|\*\)).)*\*\)", " ", text, flags=re.S)) != text:
        text = shorter
    return text


def theorems(text: str) -> list[str]:
    return STATEMENT.findall(without_comments(text))


def upto(text: str, theorem: str) -> str:
    """The file up to the end of a theorem, without the other theorems that nothing in it uses."""
    bare = without_comments(text)
    blocks = {m[1]: m[0] for m in re.finditer(r"^Theorem\s+(\w+).*?\bQed\.$", bare, flags=re.M | re.S)}
    bare = bare[: bare.index(blocks[theorem]) + len(blocks[theorem])]
    lemmas = bare
    for block in blocks.values():
        lemmas = lemmas.replace(block, "")
    kept = {theorem} | {name for name in blocks if re.search(rf"\b{name}\b", lemmas)}
    while more := {name for name in blocks for by in kept if re.search(rf"\b{name}\b", blocks[by])} - kept:
        kept |= more
    for name, block in blocks.items():
        if name not in kept:
            bare = bare.replace(block, "")
    return bare + "\n"


def compiled(text: str) -> tuple[bool, str]:
    """Whether coqc accepts a file of this text, and what it says."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "proof.v"
        file.write_text(text, encoding="utf-8")
        done = subprocess.run(["coqc", "-q", "-w", "none", str(file)], capture_output=True, text=True, cwd=folder)
    return done.returncode == 0, done.stdout + done.stderr


def assumptions(output: str) -> list[set[str]]:
    """The axioms that each `Print Assumptions` lists, in order; the empty set where a theorem is closed."""
    found: list[set[str]] = []
    for line in output.splitlines():
        if line.startswith("Closed under the global context"):
            found.append(set())
        elif line.startswith("Axioms:"):
            found.append({"?"})
        elif found and (name := re.match(r"([A-Za-z_][\w.']*)\s*(:|$)", line)):
            found[-1].discard("?")
            found[-1].add(name[1])
    return found


def accepted(file: str, axiom: str) -> bool:
    if file == "token_choice.v":
        return False
    return axiom in REALS or (file == "numeric_lemmas.v" and axiom.startswith(INTEGERS))


def problems(file: str, text: str) -> list[str]:
    """Everything wrong with a file of this name and text: it must prove all its theorems from accepted axioms."""
    bare = without_comments(text)
    if words := sorted({m[0] for m in ASSUMING.finditer(bare)}):
        return [f"assumes: {', '.join(words)}"]
    names = theorems(text)
    if not names:
        return ["states no theorem"]
    ok, output = compiled(text + "".join(f"\nPrint Assumptions {name}." for name in names) + "\n")
    if not ok:
        return [f"does not compile: {output.strip()}"]
    lists = assumptions(output)
    if len(lists) != len(names):
        return [f"{len(names)} theorems but {len(lists)} lists of assumptions"]
    return [
        f"{name} rests on {axiom}"
        for name, axioms in zip(names, lists)
        for axiom in sorted(axioms)
        if not accepted(file, axiom)
    ]


def main() -> int:
    if not shutil.which("coqc"):
        print("formal proofs skipped: no coqc (Debian: apt-get install coq libcoq-coquelicot libcoq-interval)")
        return 0
    with ThreadPoolExecutor(2) as pool:
        results = list(pool.map(lambda f: problems(f.name, f.read_text(encoding="utf-8")), files()))
    for file, wrong in zip(files(), results):
        proved = f"{len(theorems(file.read_text(encoding='utf-8')))} theorems proved"
        print(f"{file.name}: {'; '.join(wrong) or proved}")
    return 1 if any(results) else 0


if __name__ == "__main__":
    sys.exit(main())
