"""Print a script that completes commands and options in bash (and zsh, after bashcompinit)."""

from __future__ import annotations

import argparse

from resonance_theory.cli._options import Parser
from resonance_theory.cli._terminal import show

EXAMPLES = """
source <(resonance completion)
resonance completion > ~/.local/share/bash-completion/completions/resonance
"""
_SCRIPT = """_resonance() {{
    local words
    case "${{COMP_WORDS[1]}}" in
{cases}
    esac
    [ "$COMP_CWORD" -eq 1 ] && words="{commands}"
    COMPREPLY=($(compgen -W "$words" -- "${{COMP_WORDS[COMP_CWORD]}}"))
}}
complete -o default -F _resonance resonance"""


def options(parser: argparse.ArgumentParser) -> None:
    """None: the script is the same for everyone."""


def run(options: argparse.Namespace) -> int:
    (action,) = (a for a in options.root._actions if isinstance(a, argparse._SubParsersAction))
    commands: dict[str, Parser] = action.choices
    words = {name: [*sub.fill()._option_string_actions] for name, sub in commands.items()}
    for name, sub in commands.items():
        words[name] += [str(choice) for a in sub._actions if a.choices for choice in a.choices]
    cases = "\n".join(f'        {name}) words="{" ".join(known)}" ;;' for name, known in words.items())
    show(_SCRIPT.format(cases=cases, commands=" ".join([*commands, "--help", "--version"])))
    return 0
