"""The files with the routes of a batch: the driver checks them before a step, a rank reads what it computes next.

Invariant: at most the routes of one micro-batch's groups are in a rank's memory, and of a few groups in the driver's.
"""

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

from golongrl.routes.groups import GroupRoutes
from golongrl.routes.model import MoeRouting
from golongrl.routes.reference import RoutesReference
from golongrl.routes.store import MARKER, RoutesError, read_routes

if TYPE_CHECKING:  # a rank reads files and needs no queue client
    from golongrl.queue import Group

# Files checked at the same time: decompression and checksum leave Python's lock to others.
_THREADS = 4


class RoutesCheck:
    """Which groups' routes cannot be replayed, by the model that is trained."""

    def __init__(self, folder: Path, routing: MoeRouting) -> None:
        self.folder = folder
        self.routing = routing
        self._sound: set[RoutesReference] = set()  # of the last batch: it comes again with groups replaced

    def faults(self, groups: "Sequence[Group]") -> dict[str, str]:
        """The reason by uid; a group without a reference has none. Reads every file that was not in the last batch.

        Raises:
            RoutesError: the folder is not there, which is no group's fault.
        """
        if not (self.folder / MARKER).is_file():
            raise RoutesError(f"{self.folder} has no {MARKER}: is the weight store mounted here?")
        with ThreadPoolExecutor(_THREADS, thread_name_prefix="routes") as pool:
            found = zip(groups, pool.map(self._fault, groups), strict=True)
            faults = {group.uid: reason for group, reason in found if reason is not None}
        self._sound = {group.routes for group in groups if group.routes is not None and group.uid not in faults}
        return faults

    def _fault(self, group: "Group") -> str | None:
        if group.routes is None or group.routes in self._sound:
            return None
        try:
            routes = read_routes(self.folder, group.routes)
        except RoutesError as error:
            return str(error)
        made, wanted = (
            (routes.layers, routes.top_k, routes.experts),
            (len(self.routing.layers), self.routing.top_k, self.routing.experts),
        )
        if made != wanted:
            shapes = ("{} MoE layers with {} of {} experts".format(*shape) for shape in (made, wanted))
            return "routes are of {}, the model has {}".format(*shapes)
        return routes.fault(len(group.prompt_ids), [len(response.ids) for response in group.responses])


class RoutesReader:
    """A rank's: keeps what the micro-batch at hand needs."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._kept: Mapping[RoutesReference, GroupRoutes] = {}

    def keep(self, needed: set[RoutesReference]) -> None:
        """Read these, forget all others.

        Raises:
            RoutesError: one is missing or damaged.
        """
        kept = {reference: routes for reference, routes in self._kept.items() if reference in needed}
        self._kept = kept  # before anything is read, so that what is not needed is gone
        self._kept = kept | {each: read_routes(self._folder, each) for each in needed - kept.keys()}

    def read(self, reference: RoutesReference) -> GroupRoutes:
        """One that is kept."""
        return self._kept[reference]
