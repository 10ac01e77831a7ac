"""How adapters stand to the zoo: nearest sources, twins, strength, shapes, and where the sources of the same task come."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from hubrank.check.evidence import Evidence, Standing, Twin, TwinKind
from hubrank.check.findings import Neighbour
from hubrank.checkpoints.reader import ADAPTERS_WEIGHTS, PEFT_WEIGHTS
from hubrank.errors import EmptyZooError
from hubrank.hubs.folder import FolderBundle
from hubrank.ranking.neighbours import mean_cosines, vectors_of, vectors_of_zoo
from hubrank.ranking.profile import mean_norm
from hubrank.signatures.basis import Projection, project, projected_cosines
from hubrank.signatures.canonical import SHIFT
from hubrank.signatures.views import THREE_VIEWS, similarity
from hubrank.types import Signature, Source
from hubrank.zoo.packed_files import open_packed

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from hubrank.types import FloatArray
    from hubrank.zoo.packed import Packed
    from hubrank.zoo.store import Zoo

__all__ = ["standings", "stored_hashes"]

NEAREST = 5
_WEIGHTS = (*PEFT_WEIGHTS, *ADAPTERS_WEIGHTS)
_CANDIDATES = 8
_SAMPLE = 64  # sources whose norms say what is usual
_CHUNK = 256
_NEAR, _SAME = 0.9, 0.985
_NORMS = 0.01  # two norms that differ by less are the same
_ENOUGH_SHAPES = 3


def standings(zoo: Zoo, evidences: Sequence[Evidence]) -> list[Standing]:
    """Compare adapters with the zoo, and their files with each other's; those that could not be read stand nowhere.

    Raises:
        StoreError: the store is damaged or locked.
    """
    out = [Standing()] * len(evidences)
    groups: dict[tuple[str, str], list[int]] = defaultdict(list)
    for i, evidence in enumerate(evidences):
        if evidence.source is not None and evidence.signature is not None:
            groups[evidence.source.base, evidence.source.method].append(i)
    copies = _copies(evidences)
    for (base, method), members in groups.items():
        try:
            packed = open_packed(zoo, base, method)
        except EmptyZooError:
            packed = None
        yard = _Yard(zoo, packed) if packed is not None and packed.sources else None
        for start in range(0, len(members), _CHUNK):
            chunk = members[start : start + _CHUNK]
            found = [evidences[i] for i in chunk]
            stood = yard.stand(found) if yard is not None else [Standing(strength=_strength(one)) for one in found]
            for i, standing in zip(chunk, stood, strict=True):
                out[i] = _with_copies(standing, copies.get(i, ()))
    return out


def stored_hashes(source: Source) -> dict[str, str]:
    """What is known of the content of a source's weights files: from the store's record, else from its folder on this disk."""
    recorded = {name: digest for name, digest in source.files if digest and name in _WEIGHTS}
    if recorded or source.location is None or not Path(source.location).is_dir():
        return recorded
    return dict(FolderBundle(Path(source.location)).current_hashes(_WEIGHTS))


class _Yard:
    """The packed zoo of one base and method, and what is derived from it once a check."""

    def __init__(self, zoo: Zoo, packed: Packed) -> None:
        self.zoo, self.packed = zoo, packed
        self.vectors = vectors_of_zoo(packed)
        self.shapes = {site: (len(d.write), len(d.read)) for site, d in packed.basis.sites.items()}
        rows = np.unique(np.linspace(0, len(packed.sources) - 1, _SAMPLE).astype(np.intp))
        self.norms = {int(row): mean_norm(zoo.signature(packed.sources[row])) for row in rows}
        self.projections: dict[int, Projection] = {}
        self.tasks = np.array([(source.task or "").casefold() for source in packed.sources], dtype=object)
        self.places = np.array([(source.repo, source.subfolder or "") for source in packed.sources], dtype=object)
        self.folders = np.array([source.location or "" for source in packed.sources], dtype=object)

    def stand(self, evidences: Sequence[Evidence]) -> list[Standing]:
        signatures = [evidence.signature for evidence in evidences if evidence.signature is not None]
        projections = [project(signature, self.packed.basis) for signature in signatures]
        near = mean_cosines(vectors_of(projections, self.vectors.directions), self.vectors)
        return [self._one(*each) for each in zip(evidences, signatures, projections, near, strict=True)]

    def _one(self, evidence: Evidence, signature: Signature, projection: Projection, near: FloatArray) -> Standing:
        near = near.copy()
        itself = self._itself(evidence)
        near[itself] = np.nan
        others = np.flatnonzero(np.isfinite(near))
        order = others[np.argsort(-near[others], kind="stable")]
        exact = {int(row): self._cosine(int(row), projection) for row in order[:_CANDIDATES]}
        nearest = sorted(exact, key=lambda row: -exact[row])
        strength = mean_norm(signature)
        usual = [norm for row, norm in self.norms.items() if row in set(map(int, others))]
        task = (evidence.source.task or "").casefold() if evidence.source else ""
        same = np.flatnonzero(self.tasks[order] == task) if task else np.array([], dtype=np.intp)
        return Standing(
            compared=len(others),
            nearest=tuple(self._neighbour(row, exact[row]) for row in nearest[:NEAREST]),
            twins=tuple(twin for row in nearest if exact[row] >= _NEAR and (twin := self._twin(evidence, signature, row))),
            strength=strength,
            usual=float(np.median(usual)) if usual else None,
            same_task=len(same),
            same_task_rank=int(same[0]) + 1 if len(same) else None,
            misfits=self._misfits(signature) if len(near) - itself.sum() >= _ENOUGH_SHAPES else (),
        )

    def _itself(self, evidence: Evidence) -> NDArray[np.bool_]:
        """Which rows are the adapter itself: of its name, whatever the revision, or in its folder."""
        here = evidence.source.location if evidence.source is not None and evidence.source.location else "\0"
        named: NDArray[np.bool_] = (self.places == (evidence.repo, evidence.subfolder or "")).all(axis=1)
        itself: NDArray[np.bool_] = named | (self.folders == here)
        return itself

    def _cosine(self, row: int, projection: Projection) -> float:
        if row not in self.projections:
            self.projections[row] = self.packed.source(row)
        return float(np.clip(np.nanmean(projected_cosines(self.projections[row], projection)[:, 0]), -1.0, 1.0))

    def _neighbour(self, row: int, cosine: float) -> Neighbour:
        source = self.packed.sources[row]
        return Neighbour(source.name, source.task, cosine)

    def _twin(self, evidence: Evidence, signature: Signature, row: int) -> Twin | None:
        source = self.packed.sources[row]
        known = stored_hashes(source)
        if any(known.get(name) == digest for name, digest in evidence.hashes.items()):
            return Twin(source.name, "bytes")
        other = self.zoo.signature(source)
        if signature.sites != other.sites or similarity(signature, other, THREE_VIEWS[0]) < _SAME:
            return None
        ratios = np.array(
            [
                np.linalg.norm(mine.spectrum) / np.linalg.norm(theirs.spectrum)
                for mine, theirs in zip(signature.factors, other.factors, strict=True)
            ]
        )
        scale = float(np.median(ratios))
        if np.abs(ratios / scale - 1).max() > _NORMS:
            return None
        kind: TwinKind = "function" if abs(scale - 1) <= _NORMS else "scaled"
        return Twin(source.name, kind, scale)

    def _misfits(self, signature: Signature) -> tuple[str, ...]:
        return tuple(
            f"{f.site} ([{len(f.u)}, {len(f.v)}], not {list(self.shapes[f.site])})"
            for f in signature.factors
            if f.site in self.shapes and not f.site.module.endswith(SHIFT) and self.shapes[f.site] != (len(f.u), len(f.v))
        )


def _strength(evidence: Evidence) -> float | None:
    return mean_norm(evidence.signature) if evidence.signature is not None else None


def _copies(evidences: Sequence[Evidence]) -> Mapping[int, tuple[str, ...]]:
    """For each adapter, those before it in the same check whose weights files have the same content."""
    first: dict[str, int] = {}
    copies = {}
    for i, evidence in enumerate(evidences):
        for digest in evidence.hashes.values():
            original = evidences[first.setdefault(digest, i)]
            if original is not evidence and original.name != evidence.name:
                copies[i] = (original.name,)
    return copies


def _with_copies(standing: Standing, names: tuple[str, ...]) -> Standing:
    known = {twin.name for twin in standing.twins if twin.kind == "bytes"}
    more = tuple(Twin(name, "bytes", checked=True) for name in names if name not in known)
    kept = tuple(twin for twin in standing.twins if twin.name not in names or twin.kind == "bytes")
    return replace(standing, twins=(*kept, *more)) if more else standing
