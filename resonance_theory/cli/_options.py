"""The parser that every subcommand uses, and arguments that several share."""

from __future__ import annotations

import argparse
import difflib
import os
from collections.abc import Callable, Iterable
from typing import Any, NoReturn

from resonance_theory.cli._files import Json
from resonance_theory.cli._terminal import complain, show

__all__ = ["Parser", "json_option", "layers", "numbers", "one_of", "speed_options", "suggest"]


def suggest(word: str, known: Iterable[str]) -> str:
    """Words to append to a refusal: the nearest of what is known, or none."""
    near = difflib.get_close_matches(word, list(known), n=1)
    return f"; did you mean {near[0]}?" if near else ""


def one_of(name: str, value: str, known: Iterable[str]) -> None:
    """ValueError with all that is known, the nearest first, unless the value is one of them."""
    names = list(known)
    if not names:
        raise ValueError(f"{name} = {value!r} is none: there is no {name} here")
    if value not in names:
        raise ValueError(f"{name} = {value!r} must be one of {', '.join(names)}{suggest(value, names)}")


class Parser(argparse.ArgumentParser):
    """One sentence for what is wrong; arguments are added only when they are needed."""

    def __init__(self, *, fill: Callable[[Parser], None] | None = None, **options: Any) -> None:
        super().__init__(formatter_class=argparse.RawDescriptionHelpFormatter, **options)
        self._fill = fill

    def fill(self) -> Parser:
        """Add the arguments of the subcommand, once."""
        fill, self._fill = self._fill, None
        if fill is not None:
            fill(self)
        return self

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        self.fill()
        return super().parse_known_args(args, namespace)

    def error(self, message: str) -> NoReturn:
        complain(f"{self.prog}: {message} (see {self.prog} --help)")
        raise SystemExit(2)

    def _print_message(self, message: str, file: Any = None) -> None:
        show(message.rstrip("\n"))  # the help or the version

    def unknown(self, words: list[str]) -> NoReturn:
        """Refuse arguments that the subcommand does not know."""
        options = list(self._option_string_actions)
        near = next((found for word in words if (found := suggest(word.partition("=")[0], options))), "")
        self.error(f"unrecognized arguments: {' '.join(words)}{near}")

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        if action.choices is not None and value not in action.choices:
            known = list(map(str, action.choices))
            words = f"invalid choice: {value!r} must be one of {', '.join(known)}{suggest(str(value), known)}"
            raise argparse.ArgumentError(action, words)


def _whole(low: int, high: int, said: str) -> Callable[[str], int]:
    def read(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            value = low - 1
        if not low <= value <= high:
            raise argparse.ArgumentTypeError(f"{text!r} must be {said}")
        return value

    return read


_count = _whole(1, 1024, "'auto' or a whole number between 1 and 1024")
_seed = _whole(0, 2**63 - 1, "a whole number between 0 and 2^63 - 1")
times = _whole(1, 10**6, "a whole number between 1 and 10^6")


def numbers(text: str) -> list[float]:
    """Numbers with commas between them; what is allowed of each says the function that takes them."""
    try:
        return [float(part) for part in text.split(",")]
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"{text!r} must be numbers with commas between them, such as 1,1.25,2"
        ) from None


def layers(text: str) -> list[int | str]:
    """Names, places or ranges of places of layers, with commas between them: 0,3,8-11."""
    found: list[int | str] = []
    for part in text.split(","):
        low, dash, high = part.strip().partition("-")
        if low.isdecimal() and dash and high.isdecimal():
            if not int(low) <= int(high) < 10**6:
                raise argparse.ArgumentTypeError(f"{part.strip()!r} must be a range of places that rises, such as 8-11")
            found += range(int(low), int(high) + 1)
        else:
            found.append(int(part) if part.strip().isdecimal() else part.strip())
    return found


def _workers(text: str) -> int:
    if text != "auto":
        return _count(text)
    return max(1, len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1)


def _shard(text: str) -> tuple[int, int]:
    index, slash, count = text.partition("/")
    if not slash or not index.isdecimal() or not count.isdecimal() or not 1 <= int(index) <= int(count) <= 10**6:
        raise argparse.ArgumentTypeError(f"{text!r} must be I/N with 1 <= I <= N, such as 2/5")
    return int(index), int(count)


def json_option(parser: argparse.ArgumentParser) -> None:
    """--json FILE, the same for every subcommand that answers with a record."""
    parser.add_argument("--json", type=Json, metavar="FILE", help="write the record there (- prints it instead)")


def speed_options(parser: argparse.ArgumentParser) -> None:
    """How long, on how many processes and with which random streams."""
    mode = parser.add_mutually_exclusive_group()
    mode.add_argument("--quick", dest="full", action="store_false", help="minutes (the default)")
    mode.add_argument("--full", dest="full", action="store_true", help="long runs with smaller detectable errors")
    parser.set_defaults(full=False)
    parser.add_argument("--workers", type=_workers, default=1, metavar="K", help="processes, or 'auto' (default 1)")
    parser.add_argument(
        "--executor", default="processes", metavar="E", help="processes (default), dask://HOST:PORT, mpi or slurm"
    )
    parser.add_argument(
        "--shard", type=_shard, default=(1, 1), metavar="I/N", help="only the I-th of N parts; see merge"
    )
    parser.add_argument("--seed", type=_seed, default=0, metavar="K", help="seed of every random stream (default 0)")
