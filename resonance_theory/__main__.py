"""`python -m resonance_theory` is the command `resonance`."""

import sys

from resonance_theory.cli import main

if __name__ == "__main__":
    sys.exit(main())
