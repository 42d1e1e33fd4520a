"""Labels that outlines and tables are tested on."""

from __future__ import annotations

import numpy as np


def objects() -> np.ndarray:
    """Return a plain object, one with a hole, and one in two pieces."""
    labels = np.zeros((20, 30), np.int32)
    labels[2:6, 3:9] = 1
    labels[10:17, 2:9] = 2
    labels[12:14, 4:6] = 0
    labels[3:6, 20:24] = 7
    labels[12:15, 20:28] = 7
    return labels
