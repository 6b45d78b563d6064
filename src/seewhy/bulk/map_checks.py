"""The check of the maps of a bulk job. A failure of it is the reason why maps are not checked, never a failed image."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

from seewhy.errors import shorten_error
from seewhy.explanation.checks import MapCheck
from seewhy.explanation.result import Explanation
from seewhy.models.loaded_model import LoadedModel
from seewhy.tensors.random_state import preserve_rng
from seewhy.tracing.model_errors import is_caused_by_memory, is_device_error
from seewhy.trust.map_checks.map_check import check

LESS = 4  # the memory for covered images is divided by this when it is not available
LEAST = 1.0  # megabytes; with less, covered images run one by one


class MapChecker:
    """Checks the maps of batches.

    Args:
        loaded: The model that is explained, prepared or not.
        memory: Megabytes for one batch of covered images. Decreases on out-of-memory.
        log: Receives notes about the run.
    """

    def __init__(self, loaded: LoadedModel, memory: float, log: Callable[[str], None]) -> None:
        self.loaded, self.memory, self.log = loaded, memory, log
        self.has_logged = False

    def checked(self, e: Explanation) -> Explanation:
        """Return the explanation of a batch with `checks`. Raises the error of a device that is lost."""
        assert e.inputs is not None
        while True:
            try:
                with preserve_rng(e.inputs.device):  # a model may draw numbers for covered images only
                    return check(self.loaded, e, memory=self.memory)
            except Exception as error:  # model code may raise anything
                if is_device_error(error):
                    raise
                is_memory = is_caused_by_memory(error)
                if not is_memory or not self.memory:
                    reason = "not enough memory" if is_memory else shorten_error(error)
                    break
            self.reduce_memory()
        if not self.has_logged:
            self.has_logged = True
            self.log(f"the maps of {len(e)} images were not checked: {reason}")
        results = (MapCheck("not checked", reason=reason),) * len(e)
        return dataclasses.replace(e, checks=dict.fromkeys(e.maps, results))

    def reduce_memory(self) -> None:
        self.memory = self.memory / LESS if self.memory / LESS >= LEAST else 0
        how = f"with {self.memory:.3g} MB for a batch" if self.memory else "one at a time"
        self.log(f"not enough memory for a batch of covered images; the check runs them {how} from now on")


def copy_checks(e: Explanation, source: Explanation) -> Explanation | None:
    """Return an explanation of some targets of `source` with the checks of its maps; None if one of these is missing.

    Both are of the same images. A target may have another key in each, so the maps are matched by the keys of each image.
    """
    found = [one.checks for one in source]
    checks = {}
    for method, target, layer in e.maps:
        (result,) = (result for result in e.target_results if result.key == target)
        keys = [(method, result.for_image(image, e.labels).key, layer) for image in range(len(e))]
        if not all(key in known for key, known in zip(keys, found, strict=True)):
            return None
        checks[method, target, layer] = tuple(known[key][0] for key, known in zip(keys, found, strict=True))
    return dataclasses.replace(e, checks=checks)
