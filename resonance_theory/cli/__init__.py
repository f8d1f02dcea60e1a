"""The `resonance` command: one file a subcommand, its options beside its verb.

A file here without a leading underscore is a subcommand and is found by itself: its name with hyphens is the command's,
the first line of its docstring the help, `EXAMPLES` the end of it, `options(parser)` adds its arguments, and
`run(options)` returns the exit status.

Exit status: 0 success, 1 a claim or study did not pass, 2 bad input (one sentence), 130 interrupted.
"""

from resonance_theory.cli._main import _parser, main

__all__ = ["_parser", "main"]
