"""Reading on a Ray cluster: the same function that threads run, as tasks; one actor counts the requests of all machines.

The store is written by this process alone, as what the tasks give back comes in.
"""

from __future__ import annotations

import contextlib
import signal
import socket
import threading
import uuid
from collections.abc import Iterator, Mapping
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any

from hubrank.errors import HubError, UsageError
from hubrank.zoo.crew import Finished, Threads
from hubrank.zoo.work import BaseProvider, Done, Job, Refused, work_on

if TYPE_CHECKING:
    from hubrank.hubs.protocol import Hub, Listing
    from hubrank.types import Source

__all__ = ["RayCrew", "SharedBudget", "cluster_jobs", "connect_ray"]

_ATTEMPTS = 4  # of a task whose worker was killed
_CONNECT = 5.0  # seconds
_CPUS = 0.5  # of a task: half of its time it waits for a hub
_OWN = 200_000_000  # object store of a cluster of our own; one result is a few megabytes

_hubs: dict[str, Hub] = {}  # of a worker process, with the connections they keep


def connect_ray(address: str) -> None:
    """Join a Ray cluster, unless this process is in one already.

    Args:
        address: ``auto`` for the cluster this machine belongs to, ``local`` for a new one on it, or ``HOST:PORT``.

    Raises:
        UsageError: Ray is not installed.
        HubError: no cluster answers there.
    """
    try:
        import ray
    except ImportError:
        raise UsageError("--ray needs Ray: install it with `pip install 'hubrank[ray]'`") from None
    if ray.is_initialized():
        return
    own: dict[str, Any] = {"include_dashboard": False, "object_store_memory": _OWN} if address == "local" else {}
    try:
        if ":" in address and "://" not in address:  # Ray itself would try for minutes
            host, _, port = address.rpartition(":")
            socket.create_connection((host, int(port)), timeout=_CONNECT).close()
        with _own_signals():
            ray.init(address=address, log_to_driver=False, configure_logging=False, **own)
    except Exception as error:
        # A node that does not start in time is a bare Exception of Ray's.
        if type(error) is not Exception and not isinstance(error, OSError | ValueError | RuntimeError):
            raise
        reason = (str(error).strip() or type(error).__name__).splitlines()[0][:160]
        raise HubError(f"--ray {address}: no Ray cluster there ({reason}); start one with `ray start --head`") from error


@contextlib.contextmanager
def _own_signals() -> Iterator[None]:
    """Ray puts a handler of its own in place of the one that makes a request to terminate end a sync in order."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def cluster_jobs() -> int:
    """How many tasks the cluster runs at once."""
    import ray

    return max(2, int(ray.cluster_resources().get("CPU", 1) / _CPUS))


class SharedBudget:
    """A :class:`hubrank.hubs.budget.Budget` in an actor, for every machine of the cluster this process is connected to.

    Args:
        budget: what the actor holds.
    """

    def __init__(self, budget: object) -> None:
        import ray

        self._actor = ray.remote(num_cpus=0)(_Counter).remote(budget)

    def acquire(self, host: str, kind: str) -> float:
        """Take one request, or say in how many seconds to ask again."""
        import ray

        return float(ray.get(self._actor.acquire.remote(host, kind)))

    def observe(self, host: str, kind: str, status: int, headers: Mapping[str, str]) -> None:
        """Learn from an answer."""
        self._actor.observe.remote(host, kind, status, dict(headers))


class _Counter:
    """The actor."""

    def __init__(self, budget: Any) -> None:
        self._budget = budget

    def acquire(self, host: str, kind: str) -> float:
        return float(self._budget.acquire(host, kind))

    def observe(self, host: str, kind: str, status: int, headers: Mapping[str, str]) -> None:
        self._budget.observe(host, kind, status, headers)


class RayCrew:
    """Tasks of a Ray cluster. A task whose worker dies is run again elsewhere.

    What needs the base model's own tensors is done on this machine, which is the one that may have them.
    """

    def __init__(self, hub: Hub, inbox: SimpleQueue[Any], base_tensors: BaseProvider | None) -> None:
        import ray

        self._inbox = inbox
        self._here = Threads(1, inbox, base_tensors) if base_tensors is not None else None
        self._task = ray.remote(num_cpus=_CPUS, max_retries=_ATTEMPTS - 1)(_read)
        self._name, self._hub = uuid.uuid4().hex, ray.put(hub)
        self._running: dict[int, Any] = {}

    def submit(self, ticket: int, job: Job) -> None:
        """Have a job done."""
        # In a list Ray hands the hub over as a reference, which a worker follows once.
        reference = self._task.remote(self._name, [self._hub], job.listing, job.bases, job.former, methods=job.methods)
        self._running[ticket] = reference
        reference.future().add_done_callback(lambda future: self._finish(ticket, job, future))

    def close(self) -> None:
        """Begin nothing more."""
        import ray

        for reference in list(self._running.values()):
            ray.cancel(reference, force=False)
        if self._here is not None:
            self._here.close()

    def _finish(self, ticket: int, job: Job, future: Any) -> None:
        from ray.exceptions import RayTaskError, WorkerCrashedError

        self._running.pop(ticket, None)
        error = future.exception()
        if isinstance(error, WorkerCrashedError):
            detail = f"{_ATTEMPTS} workers in a row died while they read it"
            self._inbox.put(Finished(ticket, Done(Refused("worker died", detail, lasting=False))))
        elif error is not None:
            self._inbox.put(Finished(ticket, None, error.cause if isinstance(error, RayTaskError) else error))
        else:
            done: Done = future.result()
            if isinstance(done.outcome, Refused) and done.outcome.reason == "needs base" and self._here is not None:
                self._here.submit(ticket, job)
            else:
                self._inbox.put(Finished(ticket, done))


def _read(
    name: str,
    hub: list[Any],
    listing: Listing,
    bases: frozenset[str],
    former: Source | None,
    *,
    methods: frozenset[str],
) -> Done:
    """What a task runs."""
    if name not in _hubs:
        import ray

        _hubs.clear()  # of an earlier sync
        _hubs[name] = ray.get(hub[0])
    return work_on(Job(_hubs[name], listing, bases, former, methods))
