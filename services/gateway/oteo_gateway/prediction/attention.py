"""What a classifier looked at, as a picture of the original's size."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from oteo_core.errors import Unimplemented
from oteo_core.images import encode_png
from oteo_core.images.geometry import place
from oteo_core.packages import ModelPackage
from oteo_gateway.prediction.outputs import ATTENTION


def explain(package: ModelPackage, outputs: Mapping[str, NDArray[Any]], size: tuple[int, int]) -> bytes:
    """Draw the model's map of attention, PNG, grey: white is what spoke most for the answer.

    Parameters
    ----------
    package
        The model's.
    outputs
        All of its outputs for one image.
    size
        Width and height of the original, pixels.

    Raises
    ------
    Unimplemented
        ``EXPLANATION``: the model has no such map.
    """
    if ATTENTION not in outputs:
        raise Unimplemented(
            f"{package.name} gives no map of what it looked at; leave explain false.", reason="EXPLANATION", field="explain"
        )
    values = np.clip(np.asarray(outputs[ATTENTION][0], dtype=np.float32), 0.0, 1.0)
    where = place(*size, package.input)
    # First to the prepared image's size, so that the padding of a letterbox is cut off where it is.
    whole = cv2.resize(values, (package.input.width, package.input.height), interpolation=cv2.INTER_LINEAR).astype(np.float32)
    return encode_png(np.round(where.values_out(whole) * 255).astype(np.uint8))
