"""A process of its own for what may crash."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context
from typing import Any, Literal


class CrashedError(Exception):
    """The job ended its process."""


class Worker:
    """Runs jobs in another process, one at a time; a process that a job ended is replaced.

    By default the process comes from a fork server that has imported torch but run nothing, so a
    new one is cheap, and starts with neither threads nor memory left by others. One that uses a GPU
    must be started by "spawn": CUDA does not survive a fork.
    """

    def __init__(self, start: Literal["forkserver", "spawn"] = "forkserver") -> None:
        self._context = get_context(start)
        if start == "forkserver":
            self._context.set_forkserver_preload(["torch"])
        self._pool = self._new_pool()

    def _new_pool(self) -> ProcessPoolExecutor:
        return ProcessPoolExecutor(max_workers=1, mp_context=self._context)

    def run(self, job: Callable[..., Any], *arguments: Any) -> Any:
        """Return ``job(*arguments)``, or raise what it raised, or ``CrashedError``."""
        try:
            return self._pool.submit(job, *arguments).result()
        except BrokenProcessPool:
            self.renew()
            raise CrashedError(job.__name__) from None

    def renew(self) -> None:
        """Replace the process, for example after a job that may have spoilt its memory."""
        self._pool.shutdown()
        self._pool = self._new_pool()

    def __enter__(self) -> Worker:
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown()
