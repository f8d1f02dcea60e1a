"""`python -m simulations.figure_data [NAME ...]`: compute and store the named data sets, or all."""

import sys

from simulations.figure_data import names, write

chosen = sys.argv[1:] or names()
unknown = [name for name in chosen if name not in names()]
if unknown:
    sys.exit(f"data set = {unknown[0]!r} must be one of {', '.join(names())}")
for name in chosen:
    print(write(name))
