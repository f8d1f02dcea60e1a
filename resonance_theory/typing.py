"""Names of the array types that annotations use."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

__all__ = ["Array", "ArrayLike", "Booleans", "Floats", "NDArray", "Whole"]

Floats = NDArray[np.float64]
Whole = NDArray[np.int64]
Booleans = NDArray[np.bool_]
Array = Any  # any array that follows the array API standard
