"""numpy, imported when it is first used.

The operator and the reward service read the queue's state and never its arrays, so their images have no numpy (50 MB).
A module that they import takes `np` from here and defers its annotations (`from __future__ import annotations`).
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
else:

    class _Numpy:
        def __getattr__(self, name: str) -> Any:
            import numpy

            return getattr(numpy, name)

    np = _Numpy()
    NDArray = list

__all__ = ["NDArray", "np"]
