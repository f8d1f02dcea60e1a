"""Random examples are the same in every run; RESONANCE_FUZZ=1 draws fresh ones."""

import os

from hypothesis import settings

settings.register_profile("fixed", derandomize=True)
settings.register_profile("fresh", derandomize=False)
settings.load_profile("fresh" if os.environ.get("RESONANCE_FUZZ") else "fixed")
