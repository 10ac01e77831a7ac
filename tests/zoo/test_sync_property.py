"""Whatever a hub and the machine do in between: once both are well again, a sync ends where an undisturbed one does."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from hubrank.errors import HubrankError
from hubrank.zoo.database import Database
from hubrank.zoo.store import Zoo
from tests.standin import Fault, StandInHub, stand_in_hub
from tests.zoo.hub_repos import contents, fresh, lora, repo, sync

FAULTS: dict[str, Callable[[], Fault]] = {
    "busy": lambda: Fault.busy(0),
    "unavailable": lambda: Fault(503),
    "broken": lambda: Fault(500),
    "missing": lambda: Fault(404, {"X-Error-Code": "RepoNotFound"}),
    "forbidden": lambda: Fault(403),
    "web page": Fault.html,
    "loop": Fault.loop,
    "short": lambda: Fault(cut=20),
    "reset": lambda: Fault(cut=5, reset=True),
    "wrong length": lambda: Fault(longer=7),
    "wrong byte": lambda: Fault(flip=60),
    "whole": lambda: Fault(whole=True),
    "another commit": lambda: Fault(more={"X-Repo-Commit": "f" * 40}),
}


class Crash(BaseException):
    """The process would be dead."""


@dataclass(frozen=True)
class Step:
    """A change of the hub, and a sync with faults that may crash at a commit."""

    change: int
    faults: tuple[tuple[int, str], ...] = ()  # (index of a request, kind); an index of -1 spoils all of one repository
    spoiled: int = 0
    crash: int | None = None
    committed: bool = False  # whether it crashes just after the commit, or just before


def populate(hub: StandInHub) -> None:
    for i in range(4):
        hub.add(repo(f"org/{i}", i))
    hub.add(repo("org/bad", 5)).files["adapter_model.safetensors"] = b"broken"
    hub.add(repo("org/versions", 6, tags=("adapter-transformers",), branches={"v1": lora(7), "v2": lora(8)}))
    deep = hub.add(repo("org/deep", 9, tags=("adapter-transformers",)))
    deep.files |= {f"inner/{name}": data for name, data in lora(10).items()}


def change(hub: StandInHub, kind: int, seed: int) -> None:
    """One of the things that people do to their repositories."""
    match kind:
        case 1:
            hub.repos.pop(f"org/{seed % 4}", None)
        case 2:
            hub.add(repo(f"org/{seed % 4}", 100 + seed))
        case 3:
            hub.repos["org/versions"].files["README.md"] = f"# {seed}".encode()
        case 4:
            hub.repos["org/versions"].files["README.md"] = f"# {seed}".encode()
            hub.repos["org/versions"].branches = {"v1": lora(7), f"v{seed}": lora(200 + seed)}
        case 5:
            hub.repos["org/deep"].files |= {f"inner/{name}": data for name, data in lora(300 + seed).items()}
        case 6:
            hub.repos["org/bad"].files |= lora(400 + seed)
        case 7:
            hub.repos["org/deep"].files["README.md"] = f"# {seed}".encode()
        case _:
            pass


@contextlib.contextmanager
def crashing(at: int | None, *, committed: bool) -> Iterator[None]:
    """The ``at``-th commit is the last thing that happens, or is about to."""
    writing, count = Database.writing, 0

    @contextlib.contextmanager
    def counted(self: Database) -> Iterator[object]:
        nonlocal count
        with writing(self) as inside:
            yield inside
            count += 1
            if count - 1 == at and not committed:
                raise Crash
        if count - 1 == at:
            raise Crash

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Database, "writing", counted)
        with contextlib.suppress(Crash):
            yield


def spoil(hub: StandInHub, step: Step) -> None:
    count = -1
    kinds = dict(step.faults)

    def fault(method: str, path: str) -> Fault | None:
        nonlocal count
        count += 1
        kind = kinds.get(count)
        if kind is None and -1 in kinds and ("versions", "deep", "org/1")[step.spoiled % 3] in path:
            kind = kinds[-1]
        # What a listing says cannot be checked against anything: its bytes are not spoiled.
        return None if kind is None or (kind == "wrong byte" and "/api/" in path) else FAULTS[kind]()

    hub.fault = fault


def well_again(hub: StandInHub) -> None:
    hub.fault = lambda method, path: None


STEPS = st.builds(
    Step,
    change=st.integers(0, 7),
    faults=st.lists(st.tuples(st.integers(-1, 25), st.sampled_from(sorted(FAULTS))), max_size=5).map(tuple),
    spoiled=st.integers(0, 2),
    crash=st.none() | st.integers(0, 12),
    committed=st.booleans(),
)


@pytest.fixture(scope="module")
def hub():
    with pytest.MonkeyPatch.context() as patch, stand_in_hub() as running:
        patch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
        yield running


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=25)
@given(steps=st.lists(STEPS, min_size=1, max_size=4), jobs=st.sampled_from([1, 3]))
@example(steps=[Step(0, ((-1, "unavailable"),), spoiled=0), Step(3)], jobs=1)
@example(steps=[Step(0), Step(4, ((-1, "unavailable"),), spoiled=0)], jobs=1)
@example(steps=[Step(0, crash=n, committed=True) for n in (1, 4, 6)], jobs=1)
def test_any_faults_and_kills_end_where_an_undisturbed_sync_does(hub, steps, jobs):
    hub.repos.clear()
    populate(hub)
    with tempfile.TemporaryDirectory() as folder, Zoo(Path(folder, "zoo"), create=True) as zoo:
        for seed, step in enumerate(steps):
            change(hub, step.change, seed)
            spoil(hub, step)
            with crashing(step.crash, committed=step.committed), contextlib.suppress(HubrankError):
                sync(zoo, hub, jobs=jobs)
            assert zoo.verify() == []
        well_again(hub)
        sync(zoo, hub, jobs=jobs)
        there = {name: value for name, value in contents(zoo).items() if not value[0].gone}
        assert there == fresh(Path(folder), hub)
        assert sync(zoo, hub).requests == 2  # and there is nothing left to do
