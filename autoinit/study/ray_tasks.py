"""Workers on a Ray cluster: an actor for each slot, with its share of the cores and GPUs. Ray is an extra."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from ..errors import ArgumentError
from ..version import to_install
from .orders import Died, Ended, Order, Raised, Ready, Reply, carried_out
from .performer import Performer
from .spec import Study


class _Hand:
    """Carries out orders inside the cluster."""

    def __init__(self, spec: dict[str, Any], folders: list[str], device: str | None) -> None:
        import torch

        study = Study.model_validate(spec)
        torch.set_num_threads(study.threads)
        self._performer = Performer(study, [Path(folder) for folder in folders], device)

    def ready(self) -> list[Reply]:
        """Returns that it has started."""
        return [Ready()]

    def carry(self, order: Order) -> list[Reply]:
        """Returns the replies to an order."""
        return list(carried_out(self._performer, order))


class OnRay:
    """Carries out orders on a Ray cluster: that of RAY_ADDRESS, or else one started on this machine.

    Attributes:
        slots: one for each actor.

    Args:
        study: whose tasks are run; each actor takes as many cores as it has threads.
        folders: where their modules are looked up; on every machine of the cluster.
        workers: actors; None for as many as the cluster's cores take. Where there are GPUs, they share them.

    Raises:
        ArgumentError: Ray is not installed, cannot be reached, or has no room for a worker.
    """

    def __init__(self, study: Study, folders: Sequence[Path] = (), workers: int | None = None) -> None:
        try:
            import ray
        except ImportError:
            raise ArgumentError(
                f"executor 'ray' needs Ray, which is not installed: {to_install('ray')}. Or use 'local'."
            ) from None
        self._ray: Any = ray
        self._actors: dict[int, Any] = {}
        self._waiting: dict[Any, int] = {}
        self._ended: dict[int, str] = {}
        self._started = not ray.is_initialized()
        if self._started:
            self._connect()
        resources = self._ray.cluster_resources()
        count = workers if workers is not None else int(resources.get("CPU", 0) // study.threads)
        if count < 1:
            self.close()
            raise ArgumentError(
                f"{count} workers cannot run anything on {resources.get('CPU', 0):g} cores of the cluster."
            )
        share = min(1.0, resources.get("GPU", 0.0) / count)
        self._options = {"num_cpus": study.threads, "num_gpus": round(share, 3), "max_restarts": 0}
        self._arguments = (study.model_dump(mode="json"), [str(Path(one).resolve()) for one in folders])
        self._device = "cuda" if share else None
        self.slots = tuple(range(count))

    def _connect(self) -> None:
        try:
            self._ray.init(
                address=os.environ.get("RAY_ADDRESS"),
                include_dashboard=False,
                log_to_driver=False,
                logging_level="error",
            )
        except (ConnectionError, RuntimeError, ValueError) as problem:
            raise ArgumentError(
                f"The Ray cluster cannot be reached ({problem}). Start one with `ray start --head`, set RAY_ADDRESS, "
                "or leave that unset to have one started here."
            ) from None

    def give(self, slot: int, order: Order) -> None:
        """Has an order carried out at a slot that is free."""
        if slot not in self._actors:
            hand = self._ray.remote(_Hand).options(**self._options)
            self._actors[slot] = hand.remote(*self._arguments, self._device)
            self._waiting[self._actors[slot].ready.remote()] = slot
        self._waiting[self._actors[slot].carry.remote(order)] = slot

    def replies(self, timeout: float) -> Iterator[tuple[int, Reply]]:
        """Yields what has come back, with its slot, waiting so many seconds at most for the first."""
        if not self._waiting:
            return
        ready, _ = self._ray.wait(list(self._waiting), num_returns=1, timeout=timeout)
        for reference in ready:
            slot = self._waiting.pop(reference)
            for reply in self._received(slot, reference):
                yield slot, reply

    def _received(self, slot: int, reference: Any) -> list[Reply]:
        try:
            replies: list[Reply] = self._ray.get(reference)
        except self._ray.exceptions.RayError as problem:
            del self._actors[slot]  # the next order gets an actor of its own
            self._waiting = {other: place for other, place in self._waiting.items() if place != slot}
            first = (str(problem).strip().splitlines() or [""])[0]
            died = f"the worker on the cluster died: {type(problem).__name__}: {first}"
            return [Died(self._ended.pop(slot, died))]
        if isinstance(replies[-1], (Ended, Raised)):
            self._ended.pop(slot, None)
        return replies

    def end(self, slot: int, reason: str) -> None:
        """Ends the actor of a slot that is not free; `Died` comes back from it, with this reason."""
        self._ended[slot] = reason
        self._ray.kill(self._actors[slot])

    def close(self) -> None:
        """Ends all actors at once, and the cluster where it was started here."""
        if not self._started:
            for actor in self._actors.values():
                self._ray.kill(actor)
        elif self._ray.is_initialized():
            self._ray.shutdown()
