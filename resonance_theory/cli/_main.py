"""Finding the subcommands, and one sentence for whatever goes wrong in them."""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from resonance_theory import __version__, _extras
from resonance_theory.cli import _files, _terminal
from resonance_theory.cli._options import Parser

__all__ = ["main"]

_END = "exit status: 0 success, 1 a claim or study did not pass, 2 bad input, 130 interrupted"


def _parser() -> Parser:
    parser = Parser(
        prog="resonance",
        description="Mixture-of-Experts routing: exact laws, proofs and simulations.",
        epilog=f"`resonance COMMAND --help` gives its arguments and examples.\n{_END}",
    )
    parser.add_argument("--version", action="version", version=f"resonance-theory {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", parser_class=Parser)
    for path in sorted(Path(__file__).parent.glob("[!_]*.py")):
        module: Any = importlib.import_module(f"resonance_theory.cli.{path.stem}")
        about = module.__doc__.splitlines()[0].rstrip(".")
        examples = "examples:\n" + "\n".join(f"  {line}" for line in module.EXAMPLES.strip().splitlines())
        name, about = path.stem.replace("_", "-"), about[0].lower() + about[1:]
        sub = commands.add_parser(name, help=about, description=about, epilog=examples, fill=module.options)
        sub.set_defaults(run=module.run, parser=sub, root=parser)
    return parser


def _run(arguments: Sequence[str], named: list[Any]) -> int:
    """Parse and do; the subcommand's name and the options go into `named` as soon as they are known."""
    _terminal.prepare()
    parser = _parser()
    if not arguments:
        parser.print_help()
        return 0
    options, unknown = parser.parse_known_args(arguments)
    if options.command is None:
        parser.error(f"unrecognized arguments: {' '.join(unknown)}" if unknown else "a command is required")
    named[:] = [f"resonance {options.command}", options]
    if unknown:
        options.parser.unknown(unknown)
    _files.check(options, options.parser)
    return int(options.run(options))


def main(arguments: Sequence[str] | None = None) -> int:
    """The command `resonance`.

    Args:
        arguments: words after the command's name; those of the process by default.

    Returns:
        The exit status: 0 success, 1 a claim or study did not pass, 2 bad input, 130 interrupted.
    """
    named: list[Any] = ["resonance", argparse.Namespace()]
    status = 2
    try:
        status = _run(sys.argv[1:] if arguments is None else arguments, named)
    except SystemExit as stop:  # argparse has already said why
        status = stop.code if isinstance(stop.code, int) else 2
    except (ValueError, TypeError, OSError) as problem:
        _terminal.complain(f"{named[0]}: {problem}")
    except ModuleNotFoundError as missing:
        _terminal.complain(f"{named[0]}: {_extras.hint(missing.name)}")
    except MemoryError as problem:
        said = f" ({problem})" if str(problem) else ""
        _terminal.complain(f"{named[0]}: this needs more memory than there is{said}")
    except RuntimeError as problem:  # a sampler raised or its process died
        _terminal.complain(f"{named[0]}: {problem}")
        status = 1
    except KeyboardInterrupt:
        kept = "; what was stored is kept" if getattr(named[1], "store", None) else ""
        _terminal.complain(f"{named[0]}: interrupted{kept}")
        status = 130
    return _terminal.close(status)
