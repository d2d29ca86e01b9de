"""Thread pools of numerical libraries kept to the CPUs that a task was given.

Tasks that each start a thread per core of the machine are many times slower together than one after the other.
"""

from __future__ import annotations

import os
import sys
from typing import Any

_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMEXPR_NUM_THREADS", "VECLIB_MAXIMUM_THREADS")
_POOLS: list[Any] = []


def thread_environment(cpus: float) -> dict[str, str]:
    """Give the environment variables that hold libraries to so many CPUs, for a process that has not loaded them yet."""
    count = str(max(1, int(cpus)))
    return {**dict.fromkeys(_VARIABLES, count), "OMP_WAIT_POLICY": "PASSIVE"}


def limit_threads(cpus: float) -> None:
    """Hold this process to so many CPUs: the variables for what is loaded later, the pools of what is loaded already."""
    count = max(1, int(cpus))
    os.environ.update(thread_environment(cpus))
    torch: Any = sys.modules.get("torch")
    if torch is not None and hasattr(torch, "set_num_threads"):
        torch.set_num_threads(count)
    cv2: Any = sys.modules.get("cv2")
    if cv2 is not None and hasattr(cv2, "setNumThreads"):
        cv2.setNumThreads(count)
    try:
        import threadpoolctl  # type: ignore[import-untyped, unused-ignore]
    except ImportError:
        # Comes with scikit-learn; where that is not installed, neither are the pools that it would limit.
        return
    # Kept: the limits go back to what they were when the object is collected.
    _POOLS[:] = [threadpoolctl.threadpool_limits(limits=count)]
