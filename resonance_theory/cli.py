"""The `resonance` command. Exit status: 0 success, 1 a claim or study did not pass, 2 bad input (one sentence)."""

from __future__ import annotations

import argparse
import json
import os
import sys
import textwrap
import time
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

from resonance_theory import __version__, _output

__all__ = ["main"]


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {' '.join(message.split())} (see {self.prog} --help)\n")


def _workers(text: str) -> int:
    if text == "auto":
        return max(1, len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1)
    try:
        value = int(text)
    except ValueError:
        value = 0
    if not 1 <= value <= 1024:
        raise argparse.ArgumentTypeError(f"{text!r} must be 'auto' or a whole number between 1 and 1024")
    return value


def _seed(text: str) -> int:
    try:
        value = int(text)
    except ValueError:
        value = -1
    if not 0 <= value < 2**63:
        raise argparse.ArgumentTypeError(f"{text!r} must be a whole number between 0 and 2^63 - 1")
    return value


def _check_outputs(options: argparse.Namespace) -> None:
    """Refuse, before the work is done, outputs that cannot be written or would replace an input or each other."""
    given, inputs = vars(options), ("file", "gates", "text", "store")
    taken = {given[name]: name.upper() if name == "file" else f"--{name}" for name in inputs if given.get(name)}
    for name in ("json", "plot"):
        path = given.get(name)
        if path is None or (name == "json" and path == "-"):
            continue
        _output.check(f"--{name}", path)
        for other, called in taken.items():
            if os.path.realpath(other) == os.path.realpath(path):
                raise ValueError(f"--{name} = {path!r} would overwrite {called}: name another file")
        taken[path] = f"--{name}"
    if given.get("plot") is not None:
        from resonance_theory import _style

        _style.file_kind(options.plot)


def _emit(record: Any, path: str | None, text: str) -> None:
    """Show the text; with --json FILE also write the record there, with `--json -` show the record instead."""
    if path == "-":
        print(json.dumps(record, indent=1, allow_nan=False))
        return
    if path is not None:
        _output.write(path, json.dumps(record, indent=1, allow_nan=False) + "\n")
    print(text)


_COLOURS = {"PROVED": "32", "SUPPORTED": "36", "CORRECTED": "33", "REFUTED": "35", "NOT REPRODUCIBLE HERE": "2"}


def _colour(text: str, verdict: str) -> str:
    if not sys.stdout.isatty() or "NO_COLOR" in os.environ:
        return text
    return f"\033[{_COLOURS.get(verdict, '31')}m{text}\033[0m"


def _clip(text: str, width: int) -> str:
    return text if len(text) <= width else text[: max(1, width - 1)] + "…"


def _terminal_width() -> int:
    import shutil

    return max(80, shutil.get_terminal_size((120, 24)).columns)


# --- verify and claims ------------------------------------------------------------------------------------------------


def _proof_words(result: dict[str, Any]) -> str:
    """What stands behind a verdict, shortest form: counts of each kind of check."""
    kinds = [check["kind"] for check in result["checks"]]
    names = (("derivation", "derived"), ("certificate", "certified"), ("counterexample", "counterexample"))
    words = [word for kind, word in names if kind in kinds]
    references = kinds.count("reference")
    return ", ".join(words + ([f"{references} reference{'s' * (references > 1)}"] if references else []))


def _simulation_words(result: dict[str, Any]) -> str:
    """The most informative simulated rate: the one with the smallest detectable difference."""
    rows = [row for check in result["checks"] for row in check["rows"]]
    if not rows:
        return ""
    row = min(rows, key=lambda r: r["detectable"])
    sign = {"equal": "=", "at_most": "≤", "at_least": "≥"}[row["relation"]]
    return f"{row['estimate']:.5f} {sign} {row['law']:.5f} ± {(row['high'] - row['low']) / 2:.1g}  ({len(rows)} rates)"


def _verify_line(result: dict[str, Any], done: int, total: int, width: int) -> str:
    verdict = result["verdict"]
    mark = "✓" if result["passed"] else "✗"
    left = f"{mark} {_clip(result['id'], 34):<34} "
    right = (
        f" {_clip(_proof_words(result), 44):<44} {_clip(_simulation_words(result), 44):<44} {result['seconds']:5.1f} s"
    )
    line = left + _colour(f"{verdict:<12}", verdict) + right[: max(20, width - len(left) - 13 - 12)]
    return f"[{done:>2}/{total}] {line.rstrip()}"


def _verify(options: argparse.Namespace) -> int:
    from resonance_theory.evidence.claims import ledger

    if options.report is not None:
        from resonance_theory.evidence.pages import report

        report.prepare(options.report)
    ids = ledger.select(options.pattern)
    quiet = options.json == "-"
    start, width, done = time.perf_counter(), _terminal_width(), 0

    def show(result: dict[str, Any]) -> None:
        nonlocal done
        done += 1
        if not quiet:
            print(_verify_line(result, done, len(ids), width), flush=True)
            if not result["passed"]:
                print(f"        {result['problem']}", flush=True)

    if not quiet:
        mode = "full" if options.full else "quick"
        print(f"{len(ids)} claims, {mode}, seed {options.seed}; suite-wide false-alarm budget 1e-06", flush=True)
    book = ledger.verify(ids, full=options.full, seed=options.seed, workers=options.workers, on_result=show)
    record = report_record(book, time.perf_counter() - start)
    counts: dict[str, int] = {}
    for result in book.results:
        counts[result["verdict"]] = counts.get(result["verdict"], 0) + 1
    lines = [""]
    for result in book.results:
        if result["correction"] and result["passed"]:
            text = f"{result['id']} [{result['source']}]: {result['correction']}"
            verdict = f"{result['verdict']:<9}"
            wrapped = textwrap.fill(text, width, initial_indent=" " * 11, subsequent_indent=" " * 11)
            lines.append(f"{_colour(verdict, result['verdict'])}  {wrapped.lstrip()}")
    tally = ", ".join(f"{v} {k}" for k, v in sorted(counts.items()))
    lines.append(f"\n{tally}; {'all as the ledger states' if book.passed else 'NOT as the ledger states'}")
    audit_report = None
    if not options.pattern:
        from resonance_theory import audit
        from resonance_theory.evidence.claims import coverage

        record["published"] = coverage.records()
        audit_report = audit.audit(audit.example())
        record["audit"] = audit_report.to_json()
        record["audit_table"] = audit_report.table()
        lines.append(f"\nAudit of real encoder hidden states (the embedded example)\n{record['audit_table']}")
    _emit(record, options.json, "\n".join(lines))
    if options.report is not None:
        from resonance_theory.evidence.pages import report

        page = report.write(record, options.report, audit_report=audit_report)
        if not quiet:
            print(f"\nreport: {page}")
    return 0 if book.passed else 1


def report_record(book: Any, seconds: float) -> dict[str, Any]:
    """The JSON record of a verification run, with its provenance."""
    import platform
    from importlib import metadata

    versions = {}
    for name in ("numpy", "scipy", "sympy", "python-flint", "mpmath", "numba"):
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            versions[name] = "absent"
    return {
        "format": "resonance-theory ledger 1",
        "version": __version__,
        "python": platform.python_version(),
        "platform": f"{platform.system()} {platform.machine()}",
        "packages": versions,
        "full": book.full,
        "seed": book.seed,
        "false_alarm_budget": book.budget,
        "seconds": round(seconds, 1),
        "passed": book.passed,
        "claims": list(book.results),
    }


def _claims(options: argparse.Namespace) -> int:
    from resonance_theory.evidence.claims import ledger

    claims = [ledger.load(i) for i in ledger.select(options.pattern)]
    if options.published:
        return _published(claims, options)
    fields = ("id", "title", "statement", "hypotheses", "source", "kind", "correction", "mutation", "lemmas", "reason")
    record = [{**{f: getattr(c, f) for f in fields}, "expected": c.expected.value} for c in claims]
    width = _terminal_width()
    lines = []
    for claim in claims:
        verdict = claim.expected.value
        lines.append(f"{_colour(f'{verdict:<10}', verdict)} {claim.id}  [{claim.source}]")
        lines.append(f"           {_clip(claim.title, width - 11)}")
        if options.long:
            lines.append(f"           {claim.statement}")
            lines.extend(f"           where {hypothesis}" for hypothesis in claim.hypotheses)
    lines.append(f"\n{len(claims)} claims; `resonance verify` earns each verdict, `resonance verify ID` one of them")
    _emit(record, options.json, "\n".join(lines))
    return 0


def _published(claims: Sequence[Any], options: argparse.Namespace) -> int:
    """Every published statement with the claims that speak of it, in the order of the papers."""
    from resonance_theory.evidence.claims import coverage

    record = coverage.records(claims)
    verdicts = {claim.id: claim.expected.value for claim in claims}
    width = _terminal_width()
    lines = []
    for row in record:
        if not row["claims"] and options.pattern:
            continue
        lines.append(_clip(f"{row['paper']} {row['place']}: {row['text']}", width))
        lines.extend(f"    {_colour(f'{verdicts[i]:<10}', verdicts[i])} {i}" for i in row["claims"])
    covered = sum(bool(row["claims"]) for row in record)
    lines.append(f"\n{covered} of {len(record)} published statements; `resonance verify ID` earns a verdict")
    _emit(record, options.json, "\n".join(lines))
    return 0


# --- plan, audit, simulate, report ------------------------------------------------------------------------------------


def _plan(options: argparse.Namespace) -> int:
    from resonance_theory.plan import plan, setting

    names: tuple[str, ...] = ("tokens", "experts", "top", "hit", "percentile", "candidate_tail", "false_positive")
    names += ("signal", "dim", "block_length", "correlation")
    rates = setting(options.rule, **{name: getattr(options, name) for name in names})
    answer = plan(options.rule, options.tokens, options.target, rates)
    if options.plot is not None:
        answer.figure(options.plot)
    _emit(answer.to_json(), options.json, answer.table())
    return 0


def _audit(options: argparse.Namespace) -> int:
    from resonance_theory import audit

    center = True if options.center else None
    result: Any
    if options.model is not None or options.text is not None:
        if options.file is not None or options.gates is not None:
            raise ValueError("--model DIR --text FILE replace FILE and --gates: leave those out")
        if options.model is None or options.text is None:
            raise ValueError("--model DIR and --text FILE must be given together")
        from resonance_theory.audit.model import audit_model

        result = audit_model(options.model, options.text, experts=options.experts, top=options.top, center=center)
    elif options.file is None:
        raise ValueError("give FILE (or 'example'), or a model by --model DIR --text FILE")
    else:
        path = audit.example() if options.file == "example" else options.file
        top = 1 if options.top is None else options.top
        result = audit.audit(path, experts=options.experts, top=top, center=center, gates=options.gates)
    if options.plot is not None:
        result.figure(options.plot)
    _emit(result.to_json(), options.json, result.table())
    return 0


def _simulate(options: argparse.Namespace) -> int:
    from resonance_theory.evidence.studies.study import run_study

    if options.all:
        return _simulate_all(options)
    if options.study is None:
        raise ValueError("give STUDY, or --all for every study")
    result = run_study(
        options.study,
        full=options.full,
        seed=options.seed,
        workers=options.workers,
        backend=options.backend,
        device=options.device,
        store=options.store,
        resume=options.resume,
    )
    from resonance_theory.evidence.sampling import ranks

    if ranks.rank():  # rank 0 alone reports
        return 0 if result.passed else 1
    _emit(result.to_json(), options.json, result.table())
    if options.record:
        from resonance_theory.evidence.claims.ledger import folder

        path = folder("simulations") / "results" / f"{options.study}.jsonl"
        path.parent.mkdir(exist_ok=True)
        result.write(path)
    return 0 if result.passed else 1


def _simulate_all(options: argparse.Namespace) -> int:
    from resonance_theory.evidence.studies.evidence import run_all

    if options.record or options.backend != "numpy" or options.device != "cpu":
        raise ValueError("--all runs every study as it stands: leave --record, --backend and --device out")
    quiet = options.json == "-"
    found = run_all(
        options.study or "*",
        full=options.full,
        seed=options.seed,
        workers=options.workers,
        store=options.store,
        resume=options.resume,
        progress=sys.stderr,
        on_result=lambda evidence: None if quiet else print(evidence.line(), flush=True),
    )
    others = ("undecided", "no claim", "not run", "failed")
    by_status = {status: [e for e in found if e.status == status] for status in ("passed", *others)}
    named = (f"{status} {', '.join(e.name for e in by_status[status])}" for status in others)
    summary = "; ".join(
        [f"{len(by_status['passed'])} of {len(found)} studies passed", *(n for n in named if not n.endswith(" "))]
    )
    tables = [f"\n{e.name}\n{e.result.table()}" for e in found if e.result is not None and e.status != "passed"]
    _emit([evidence.to_json() for evidence in found], options.json, "\n".join([*tables, summary]))
    return 1 if by_status["failed"] else 0


def _figures(options: argparse.Namespace) -> int:
    import importlib

    from resonance_theory.evidence.claims.ledger import folder

    folder("paper_figures")
    gallery = importlib.import_module("paper_figures._gallery")
    chosen = gallery.choose(options.name)
    if options.record:
        if options.name is not None:
            raise ValueError("--record stores all figures: leave NAME out")
        print("\n".join(map(str, gallery.record())))
        return 0
    if not options.check:
        print("\n".join(map(str, gallery.write(chosen, options.out))))
        return 0
    result = gallery.check(chosen)
    for name, problems in result.items():
        print(f"{'✗' if problems else '✓'} {name}")
        for problem in problems:
            print(f"    {problem}")
    return 1 if any(result.values()) else 0


def _report(options: argparse.Namespace) -> int:
    from resonance_theory.evidence.pages import report

    record = report.read(options.record)
    report.prepare(options.directory)
    try:
        page = report.write(record, options.directory)
    except (LookupError, TypeError, AttributeError) as problem:
        reason = f"{type(problem).__name__}: {problem}"
        raise ValueError(
            f"record = {options.record!r} is not a complete record of `resonance verify` ({reason})"
        ) from None
    print(f"report: {page}")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="resonance", description="Mixture-of-Experts routing: exact laws, proofs and simulations.")
    parser.add_argument("--version", action="version", version=f"resonance-theory {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND", parser_class=_Parser)

    def command(name: str, function: Callable[[argparse.Namespace], int], help: str) -> argparse.ArgumentParser:
        sub = commands.add_parser(name, help=help, description=help)
        sub.set_defaults(function=function)
        return sub

    def json_option(sub: argparse.ArgumentParser) -> None:
        sub.add_argument(
            "--json", metavar="FILE", nargs="?", const="-", help="write the record (no FILE or -: print it)"
        )

    def speed_options(sub: argparse.ArgumentParser) -> None:
        mode = sub.add_mutually_exclusive_group()
        mode.add_argument("--quick", dest="full", action="store_false", help="minutes (the default)")
        mode.add_argument("--full", dest="full", action="store_true", help="long runs with smaller detectable errors")
        sub.set_defaults(full=False)
        sub.add_argument("--workers", type=_workers, default=1, metavar="K", help="processes, or 'auto'")
        sub.add_argument("--seed", type=_seed, default=0, metavar="K", help="seed of every random stream")

    sub = command("verify", _verify, "prove, compute and simulate claims; exit 0 only if each earns its verdict")
    sub.add_argument("pattern", nargs="?", default="", metavar="PATTERN", help="part of an id, or a shell pattern")
    speed_options(sub)
    sub.add_argument("--report", metavar="DIR", help="write an HTML page, Markdown, JUnit XML and JSON there")
    json_option(sub)

    sub = command("claims", _claims, "list the ledger: statement, source and expected verdict of every claim")
    sub.add_argument("pattern", nargs="?", default="", metavar="PATTERN")
    sub.add_argument("--long", action="store_true", help="with statements and hypotheses")
    sub.add_argument("--published", action="store_true", help="by statement of the papers, in their order")
    json_option(sub)

    sub = command("plan", _plan, "least capacity for a target success rate, and what it costs")
    sub.add_argument(
        "--rule",
        required=True,
        metavar="R",
        help="token_choice, expert_choice, resonance or adaptive (a share of the affinity)",
    )
    sub.add_argument("--tokens", required=True, type=int, metavar="S", help="tokens per sample")
    sub.add_argument("--experts", required=True, type=int, metavar="N")
    sub.add_argument("--target", required=True, type=float, metavar="T", help="success rate in (0, 1)")
    sub.add_argument("--top", type=int, default=1, metavar="L", help="experts per token (default 1)")
    sub.add_argument("--hit", type=float, metavar="P", help="hit rate (default 1)")
    sub.add_argument("--percentile", type=float, metavar="RHO", help="affinity percentile among candidates (resonance)")
    sub.add_argument("--candidate-tail", type=float, metavar="H", help="instead of the percentile (resonance)")
    sub.add_argument("--false-positive", type=float, metavar="Q", help="false-positive rate (expert choice)")
    sub.add_argument("--signal", type=float, metavar="THETA", help="planted isotropic model: signal over noise")
    sub.add_argument("--dim", type=int, metavar="D", help="planted isotropic model: dimension")
    sub.add_argument("--block-length", type=int, metavar="M", help="tokens take routes in runs of M")
    sub.add_argument(
        "--correlation", type=float, metavar="K", help="loads vary: the audit's intra-sequence correlation"
    )
    sub.add_argument("--plot", metavar="FILE", help="success against capacity (.png, .svg or .pdf)")
    json_option(sub)

    sub = command("audit", _audit, "measure a router's assumptions on real hidden states, and the capacity they need")
    sub.add_argument("file", nargs="?", metavar="FILE", help=".safetensors or .npy; 'example' for the embedded file")
    sub.add_argument(
        "--model", metavar="DIR", help="instead: a local Mixtral-type model, its routers beside GrAP gates"
    )
    sub.add_argument("--text", metavar="FILE", help="UTF-8 text that the model reads")
    sub.add_argument(
        "--experts", type=int, metavar="N", help="GrAP gates (default 8, or as many as the model's experts)"
    )
    sub.add_argument("--top", type=int, metavar="L", help="experts per token (default 1, or the model's)")
    sub.add_argument("--center", action="store_true", help="only the centred gates (default: raw and centred)")
    sub.add_argument("--gates", metavar="FILE", help="your own gates, (experts, features), .npy or .safetensors")
    sub.add_argument("--plot", metavar="FILE", help="the figure (.png, .svg or .pdf)")
    json_option(sub)

    sub = command("simulate", _simulate, "run a study of simulations/ and confront it with the exact laws")
    sub.add_argument("study", nargs="?", metavar="STUDY", help="a study's name (with --all: a shell pattern)")
    sub.add_argument("--all", action="store_true", help="every study in turn; exit 0 only if none fails")
    speed_options(sub)
    sub.add_argument("--backend", choices=("numpy", "torch", "cupy"), default="numpy")
    sub.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    sub.add_argument("--record", action="store_true", help="replace the stored record in simulations/results/")
    sub.add_argument("--store", metavar="FILE", help="append-only record of finished blocks (--all: a folder)")
    sub.add_argument("--resume", action="store_true", help="go on where the store stops")
    json_option(sub)

    sub = command("figures", _figures, "draw the figures of paper_figures/ from the stored results")
    sub.add_argument("name", nargs="?", metavar="NAME", help="one figure (default: all)")
    action = sub.add_mutually_exclusive_group()
    action.add_argument("--out", metavar="DIR", default="out/figures", help="where to write (default out/figures)")
    action.add_argument("--check", action="store_true", help="redraw and compare with the stored reference")
    action.add_argument("--record", action="store_true", help="replace the stored reference and the README's picture")

    sub = command("report", _report, "render a stored ledger (verify --json FILE) as a report")
    sub.add_argument("record", metavar="LEDGER.json")
    sub.add_argument("directory", metavar="DIR")
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit status."""
    try:
        options = _parser().parse_args(arguments)
    except SystemExit as stop:  # argparse has already said why
        return stop.code if isinstance(stop.code, int) else 2
    try:
        _check_outputs(options)
        return options.function(options)
    except (ValueError, TypeError, OSError) as problem:
        text = " ".join(str(problem).split())
        print(f"resonance {options.command}: {text}", file=sys.stderr)
        return 2
    except ModuleNotFoundError as missing:
        extra = "cpu,peers" if missing.name == "transformers" else "cpu"
        needed = f"the package {missing.name!r} is needed: pip install 'resonance-theory[{extra}]'"
        print(f"resonance {options.command}: {needed}", file=sys.stderr)
        return 2
    except RuntimeError as problem:  # a sampler raised or its process died
        print(f"resonance {options.command}: {' '.join(str(problem).split())}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(f"resonance {options.command}: interrupted; what was stored is kept", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
