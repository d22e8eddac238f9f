"""The types of arrays, named for what they hold. Docstrings say the shapes."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.floating]
Image = NDArray[np.uint8]  # 0 to 255; colours are RGB
Pixels = NDArray[Any]  # images, masks, and values computed pixel by pixel
