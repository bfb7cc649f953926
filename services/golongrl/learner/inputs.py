"""What a run trains on: recipe, model and data, checked against each other before anything slow starts."""

import hashlib
from collections import Counter
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from golongrl.data import Prepared, lease_order, open_splits, resolve, weighted_order
from golongrl.data.model_config import CONFIG, read_config
from golongrl.learner import memory, model_identity
from golongrl.learner.checkpoints.resume import Identity
from golongrl.recipe import Recipe, RecipeError
from golongrl.recipe.fit import rows_fault
from golongrl.recipe.functions import check_functions


@dataclass(frozen=True)
class Inputs:
    """What a run trains on, checked."""

    recipe: Recipe
    model: Path
    model_config: dict[str, Any]
    data: Prepared
    held_out: Prepared | None
    order: list[NDArray[np.int32]]  # of every epoch
    identity: Identity

    @classmethod
    def read(cls, recipe: Recipe, data_folder: Path, *, every_byte: bool = True) -> "Inputs":
        """
        Args:
            every_byte: compare the data with their checksums, where that was not done just now.

        Raises:
            GolongrlError: model, data and recipe cannot be trained with; one line says why.
        """
        check_functions(recipe)
        model = resolve(recipe.model.path, trust_remote_code=recipe.model.trust_remote_code)
        model_config = read_config(model / CONFIG)
        memory.check_layout(recipe, model_config)
        memory.check_kernel(recipe, model_config, lambda name: find_spec(name) is not None)
        data, held_out = open_splits(data_folder, every_byte=every_byte)
        if fault := rows_fault(recipe, len(data)):
            raise RecipeError(fault)
        order = [_order(recipe, data, epoch) for epoch in range(recipe.data.epochs)]
        if not any(len(rows) for rows in order):
            counts = Counter(data.task_types)
            found = ", ".join(f"{counts[task]} of {task}" for task in sorted(recipe.data.task_weights or {}))
            raise RecipeError(
                f"data.task_weights fills no batch of {recipe.queue.groups_per_step} groups: there are {found} rows; "
                "leave out the types without rows, or give them less weight"
            )
        digest = hashlib.sha256(b"".join(np.ascontiguousarray(rows).tobytes() for rows in order)).hexdigest()
        identity = Identity(recipe, len(data), digest, model_identity.of(model, model_config), data.digest)
        return cls(recipe, model, model_config, data, held_out, order, identity)


def _order(recipe: Recipe, data: Prepared, epoch: int) -> NDArray[np.int32]:
    size, weights = recipe.queue.groups_per_step, recipe.data.task_weights
    if weights is None:
        return lease_order(data.tasks, size, recipe.seed, epoch)
    return weighted_order(data.task_types, size, recipe.seed, epoch, dict(weights.items()))
