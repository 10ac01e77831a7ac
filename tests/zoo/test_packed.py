"""The packed matrix: exact with room for every direction, and rebuilt whenever the store moved on or a file is damaged."""

from __future__ import annotations

import json
import random
import shutil

import numpy as np
import pytest
from safetensors.numpy import load, save

from hubrank.checkpoints.architectures import site_of
from hubrank.checkpoints.reader import READER_VERSION
from hubrank.errors import EmptyZooError
from hubrank.signatures.basis import project
from hubrank.signatures.canonical import SHIFT
from hubrank.signatures.views import THREE_VIEWS, similarity, site_cosines
from hubrank.types import Delta, Signature
from hubrank.zoo import packed as arithmetic
from hubrank.zoo import packed_files as module
from hubrank.zoo.packed import choose_p, pack
from hubrank.zoo.packed_files import OLDER, open_packed
from hubrank.zoo.store import Zoo
from tests.builders import BASE, MODULES, make_source, random_factors, random_signature, sign

SITES = tuple(site_of(name) for name in MODULES)


def zoo_of(n: int, **options):
    return [(make_source(f"org/{i:03}"), random_signature(i, **options)) for i in range(n)]


def packed_of(pairs, **options):
    return pack(BASE, "lora", 1, pairs, **options)


@pytest.fixture
def zoo(tmp_path):
    with Zoo(tmp_path / "cache", create=True) as zoo:
        for source, signature in zoo_of(10):
            zoo.put(source, signature)
        yield zoo


@pytest.fixture
def builds(monkeypatch):
    """How each matrix was made: 'learned' a basis or 'reused' one; a matrix read from disk leaves nothing."""
    log = []

    def counted(*args, basis=None, **options):
        log.append("learned" if basis is None else "reused")
        return pack(*args, basis=basis, **options)

    monkeypatch.setattr(module, "pack", counted)
    return log


def test_with_room_for_every_direction_packed_cosines_are_the_exact_ones():
    pairs = zoo_of(6)
    packed = packed_of(pairs, p=16)
    target = random_signature(0)
    projection = project(target, packed.basis)
    cosines = packed.cosines(projection)
    for i, view in enumerate(THREE_VIEWS):
        exact = [similarity(target, signature, view) for _, signature in pairs]
        np.testing.assert_allclose(cosines[view.view], exact, atol=1e-2)
        for row, (_, signature) in enumerate(pairs):
            found = packed.site_cosines(row, projection)[:, i]
            np.testing.assert_allclose(found, list(site_cosines(target, signature, view).values()), atol=1e-2)
    assert packed.coverage(projection).tolist() == [1.0] * 6
    columns = sum(len(f.s) for _, signature in pairs for f in signature.factors)
    assert packed.u.dtype == packed.v.dtype == np.int8
    assert packed.u.shape == packed.v.shape == (columns, 16)


def test_a_source_that_lacks_sites_is_compared_on_those_it_has():
    pairs = zoo_of(4)
    half = Signature(pairs[1][1].factors[:2])
    pairs[1] = (pairs[1][0], half)
    packed = packed_of(pairs, p=16)
    target = random_signature(50)
    projection = project(target, packed.basis)
    assert packed.there[1].tolist() == [True, True, False, False]
    assert packed.coverage(projection).tolist() == [1.0, 0.5, 1.0, 1.0]
    for i, view in enumerate(THREE_VIEWS):
        cosines = packed.site_cosines(1, projection)[:, i]
        assert np.isnan(cosines).tolist() == [False, False, True, True]
        assert packed.cosines(projection)[view.view][1] == pytest.approx(cosines[:2].mean(), abs=1e-4)


def test_a_target_that_lacks_sites_is_compared_on_those_it_has():
    pairs = zoo_of(4)
    packed = packed_of(pairs, p=16)
    target = Signature(pairs[2][1].factors[3:])
    projection = project(target, packed.basis)
    for view in THREE_VIEWS:
        exact = [similarity(target, signature, view) for _, signature in pairs]
        np.testing.assert_allclose(packed.cosines(projection)[view.view], exact, atol=1e-2)
    assert packed.coverage(projection).tolist() == [1.0] * 4


def test_without_a_common_site_a_cosine_is_unknown():
    pairs = [
        (make_source("o/a"), Signature(random_signature(0).factors[:2])),
        (make_source("o/b"), Signature(random_signature(1).factors[2:])),
    ]
    packed = packed_of(pairs, p=8)
    target = Signature(random_signature(2).factors[:2])
    projection = project(target, packed.basis)
    for view in ("compute", "read", "write"):
        assert np.isnan(packed.cosines(projection)[view]).tolist() == [False, True]
    assert packed.coverage(projection).tolist() == [1.0, 0.0]
    nowhere = project(random_signature(3, sites=["encoder.layer.9.x"]), packed.basis)
    assert np.isnan(packed.cosines(nowhere)["read"]).all()
    assert packed.coverage(nowhere).tolist() == [0.0, 0.0]


def test_a_packed_source_is_its_projection():
    pairs = zoo_of(3)
    pairs[1] = (pairs[1][0], Signature(pairs[1][1].factors[1:3]))
    packed = packed_of(pairs, p=8)
    for row, (_, signature) in enumerate(pairs):
        projection, stored = project(signature, packed.basis), packed.source(row)
        assert np.array_equal(stored.starts, projection.starts)
        assert np.array_equal(stored.weights, projection.weights)
        for name in ("u", "v"):
            np.testing.assert_allclose(getattr(stored, name), getattr(projection, name), atol=1e-2)


def test_comparing_in_pieces_changes_nothing(monkeypatch):
    packed = packed_of(zoo_of(7), p=8)
    target = project(random_signature(70), packed.basis)
    whole = packed.cosines(target)
    monkeypatch.setattr(arithmetic, "_CHUNK", 3)
    for view, values in packed.cosines(target).items():
        np.testing.assert_allclose(values, whole[view], atol=1e-6)


def test_sources_with_nothing_to_compare_are_left_out_and_counted():
    pairs = [*zoo_of(20), (make_source("org/odd"), random_signature(99, sites=["encoder.layer.7.rare"]))]
    pairs.append((make_source("org/shape"), random_signature(99, d_in=12)))
    packed = packed_of(pairs)
    assert packed.sites == SITES  # rare's site is in under a tenth of the sources
    assert [s.repo for s in packed.sources] == [s.repo for s, _ in pairs[:20]]
    assert packed.left_out == {"no comparable sites": 2}
    assert len(packed.there) == 20
    assert packed.learned_on == 22


def test_the_shape_of_a_site_is_the_one_most_sources_have():
    pairs = [(make_source(f"org/{i}"), random_signature(i, d_in=12 if i < 3 else 16)) for i in range(8)]
    packed = packed_of(pairs)
    assert {directions.read.shape[0] for directions in packed.basis.sites.values()} == {16}
    assert packed.left_out == {"no comparable sites": 3}


def with_shifts(seed):
    """Updates and shifts at two sites."""
    at = [
        Delta(site_of(name), *reversed(random_factors(seed + i)), shift=random_factors(seed + i, rank=1)[0][:, 0])
        for i, name in enumerate(MODULES[:2])
    ]
    return sign(at)


@pytest.mark.parametrize(
    ("method", "modules"),
    [
        ("lora", {"query", "value"}),
        ("bottleneck", {"query", "value"}),
        ("prompt", {"query.shift", "value.shift"}),
        ("prefix", {"query", "value", "query.shift", "value.shift"}),
        ("reft", {"query", "value", "query.shift", "value.shift"}),
    ],
)
def test_a_method_is_compared_at_its_own_kind_of_site(method, modules):
    packed = pack(BASE, method, 1, [(make_source(f"org/{i:03}"), with_shifts(10 * i)) for i in range(4)])
    assert {site.module.removeprefix("attention.self.") for site in packed.sites} == modules
    assert packed.left_out == {}


def test_shifts_change_nothing_for_lora():
    """To the bit: a DoRA's magnitudes have no say in how its updates are packed."""
    shifted = [(make_source(f"org/{i:03}"), with_shifts(10 * i)) for i in range(4)]
    plain = [(s, Signature(tuple(f for f in found.factors if not f.site.module.endswith(SHIFT)))) for s, found in shifted]
    assert_same(packed_of(shifted), packed_of(plain))


def test_a_lora_of_shifts_alone_is_left_out():
    pairs = [*zoo_of(3), (make_source("org/shifts"), Signature(with_shifts(0).factors[1::2]))]
    assert all(site.module.endswith(SHIFT) for site in pairs[-1][1].sites)
    packed = packed_of(pairs)
    assert len(packed.sources) == 3
    assert packed.left_out == {"no comparable sites": 1}


@pytest.mark.parametrize(
    ("columns", "sources", "p"),
    [(96, 10, 256), (1000, 10, 256), (1100, 10, 128), (2000, 10, 128), (3584, 10, 64), (96, 50_000, 128), (9999, 10**6, 16)],
)
def test_p_keeps_a_source_and_the_whole_under_their_budgets(columns, sources, p):
    assert choose_p(columns, sources) == p
    size = 2 * columns * p
    assert p == 16 or (size <= 512 * 1024 and size * sources <= 2 * 1024**3)
    assert p == 256 or 2 * size > 512 * 1024 or 2 * size * sources > 2 * 1024**3


def columns_of(**changes):
    """Spoil the arrays that lie beside the basis."""

    def spoil(raw: bytes) -> bytes:
        return save({**load(raw), **{name: change(load(raw)[name]) for name, change in changes.items()}})

    return spoil


@pytest.mark.parametrize(
    "spoil",
    [
        columns_of(starts=lambda a: a + 1),
        columns_of(starts=lambda a: a[:, ::-1].copy()),
        columns_of(starts=lambda a: a * 2),
        columns_of(starts=lambda a: a.astype(np.int32)),
        columns_of(starts=lambda a: a[:, :-1].copy()),
        columns_of(starts=lambda a: np.where(a == a.max(), 2**62, a)),
        columns_of(scales=lambda a: a[:-1].copy()),
        columns_of(weights=lambda a: a[:, :2].copy()),
        columns_of(norms=lambda a: a[:-1].copy()),
        columns_of(norms=lambda a: a.astype(np.float32)),
        columns_of(norms=lambda a: a * np.inf),
        columns_of(norms=lambda a: 0 * a),
    ],
)
def test_arrays_that_do_not_fit_each_other_are_built_again(zoo, builds, spoil):
    first = open_packed(zoo, BASE, "lora")
    (folder,) = zoo.packed_folder.iterdir()
    path = folder / "basis.safetensors"
    path.write_bytes(spoil(path.read_bytes()))
    assert_same(open_packed(zoo, BASE, "lora"), first)
    assert builds == ["learned", "learned"]


def test_a_subset_is_the_zoo_without_the_others():
    pairs = zoo_of(6)
    pairs[2] = (pairs[2][0], Signature(pairs[2][1].factors[1:3]))
    packed = packed_of(pairs, p=8)
    target = project(random_signature(60), packed.basis)
    some = packed.subset(np.array([1, 2, 5]))
    assert [source.repo for source in some.sources] == ["org/001", "org/002", "org/005"]
    assert np.array_equal(some.there, packed.there[[1, 2, 5]])
    for view, values in packed.cosines(target).items():
        np.testing.assert_allclose(some.cosines(target)[view], values[[1, 2, 5]], atol=1e-6)


def test_many_targets_at_once_are_compared_as_one_by_one():
    packed = packed_of(zoo_of(5), p=8)
    whole = random_signature(60)
    signatures = [whole, Signature(whole.factors[:2]), random_signature(61, sites=["encoder.layer.9.x"]), random_signature(62)]
    targets = [project(signature, packed.basis) for signature in signatures]
    together = packed.cosines_of(targets)
    for i, target in enumerate(targets):
        for view, values in packed.cosines(target).items():
            np.testing.assert_allclose(together[view][i], values, atol=1e-6)
    assert np.isnan(together["read"][2]).all()


# On disk


def assert_same(one, other) -> None:
    assert one.sources == other.sources
    assert one.sites == other.sites
    assert [(s.reads, s.writes) for s in one.sites] == [(s.reads, s.writes) for s in other.sites]
    for name in ("starts", "u", "v", "scales", "weights", "norms"):
        assert np.array_equal(getattr(one, name), getattr(other, name))
    assert (one.base, one.method, one.generation, one.learned_on, one.left_out) == (
        other.base,
        other.method,
        other.generation,
        other.learned_on,
        other.left_out,
    )
    for mine, theirs in zip(one.basis.sites.values(), other.basis.sites.values(), strict=True):
        assert np.array_equal(mine.write, theirs.write)
        assert np.array_equal(mine.read, theirs.read)


def test_it_is_built_once_and_read_through_a_memory_map_afterwards(zoo, builds):
    first = open_packed(zoo, BASE, "lora")
    second = open_packed(zoo, BASE, "lora")
    assert builds == ["learned"]
    assert isinstance(second.u, np.memmap)
    assert_same(first, second)
    assert first.generation == zoo.generation == 10
    assert [source.repo for source in second.sources] == [f"org/{i:03}" for i in range(10)]


def test_it_finds_the_stored_source_that_is_the_target(zoo):
    packed = open_packed(zoo, BASE, "lora")
    for values in packed.cosines(project(random_signature(7), packed.basis)).values():
        assert values.argmax() == 7
        assert values[7] == pytest.approx(1.0, abs=0.02)


def test_a_little_growth_reuses_the_basis_and_a_fifth_more_learns_it_anew(zoo, builds):
    first = open_packed(zoo, BASE, "lora")
    for i in (10, 11):
        zoo.put(make_source(f"org/{i:03}"), random_signature(i))
    grown = open_packed(zoo, BASE, "lora")
    assert (len(grown.sources), grown.learned_on, grown.generation) == (12, 10, 12)
    for mine, theirs in zip(first.basis.sites.values(), grown.basis.sites.values(), strict=True):
        assert np.array_equal(mine.read, theirs.read)
    zoo.put(make_source("org/012"), random_signature(12))
    again = open_packed(zoo, BASE, "lora")
    assert builds == ["learned", "reused", "learned"]
    assert (len(again.sources), again.learned_on) == (13, 13)


@pytest.mark.parametrize("change", ["gone", "updated"])
def test_a_source_that_left_or_changed_learns_the_basis_anew(zoo, builds, change):
    open_packed(zoo, BASE, "lora")
    if change == "gone":
        zoo.mark(make_source("org/003"), gone=True)
    else:
        zoo.put(make_source("org/003", revision="b" * 40), random_signature(77))
    packed = open_packed(zoo, BASE, "lora")
    assert builds == ["learned", "learned"]
    assert len(packed.sources) == (9 if change == "gone" else 10)
    assert packed.generation == zoo.generation


def test_each_base_and_method_has_a_matrix_of_its_own(zoo, builds):
    zoo.put(make_source("org/x", base="org/other"), random_signature(50, d_in=12))
    zoo.put(make_source("org/y", method="ia3"), random_signature(51))
    assert len(open_packed(zoo, BASE, "lora").sources) == 10
    assert [s.repo for s in open_packed(zoo, "org/other", "lora").sources] == ["org/x"]
    assert [s.repo for s in open_packed(zoo, BASE, "ia3").sources] == ["org/y"]
    assert len(open_packed(zoo, BASE, "lora").sources) == 10
    assert builds == ["learned"] * 3


def test_a_zoo_without_a_source_for_them_is_empty(zoo, tmp_path):
    with pytest.raises(EmptyZooError, match="org/none"):
        open_packed(zoo, "org/none", "lora")
    with Zoo(tmp_path / "nowhere") as missing, pytest.raises(EmptyZooError):
        open_packed(missing, BASE, "lora")


def spoil_index(**changes):
    def spoil(raw: bytes) -> bytes:
        return json.dumps({**json.loads(raw), **changes}).encode()

    return spoil


DAMAGE = {
    "nothing": lambda raw: b"",
    "cut in the middle": lambda raw: raw[: len(raw) // 2],
    "one byte short": lambda raw: raw[:-1],
    "random": lambda raw: random.Random(0).randbytes(len(raw)),
    "a zip": lambda raw: b"PK\x03\x04" + raw[4:],
    "a pickle": lambda raw: b"\x80\x04K\x05." + raw[5:],
    "an open bracket": lambda raw: raw[:10] + b"(" + raw[11:],
    "deep nesting": lambda raw: b"[" * 200_000,
    "gone": None,
}
INDEX_DAMAGE = {
    "another format": spoil_index(format=99),
    "a list": lambda raw: b"[]",
    "no sources": spoil_index(sources=[]),
    "bad sources": spoil_index(sources=[{}] * 10),
    "sources of another type": spoil_index(sources=5),
    "bad sites": spoil_index(sites=[[1]] * 4),
    "unhashable sites": spoil_index(sites=[["", [], "m", "m", "m"]] * 4),
    "one site": spoil_index(sites=[["", 0, "m", "m", "m"]]),
    "another p": spoil_index(p=8),
    "p of another type": spoil_index(p="many"),
    "endless p": spoil_index(p=float("inf")),
    "learned_on of another type": spoil_index(learned_on=None),
    "left_out of another type": spoil_index(left_out=5),
}


@pytest.mark.parametrize(
    ("name", "spoil"),
    [(name, spoil) for name in ("u.npy", "v.npy", "basis.safetensors", "index.json") for spoil in DAMAGE.values()]
    + [("index.json", spoil) for spoil in INDEX_DAMAGE.values()],
    ids=[f"{name}-{kind}" for name in ("u", "v", "basis", "index") for kind in DAMAGE]
    + [f"index-{kind}" for kind in INDEX_DAMAGE],
)
@pytest.mark.parametrize("moved_on", [False, True])
def test_a_damaged_file_is_built_again(zoo, builds, name, spoil, moved_on):
    first = open_packed(zoo, BASE, "lora")
    (folder,) = zoo.packed_folder.iterdir()
    assert {path.name for path in folder.iterdir()} == {"u.npy", "v.npy", "basis.safetensors", "index.json"}
    path = folder / name
    if spoil is None:
        path.unlink()
    else:
        data = path.read_bytes()
        path.unlink()
        path.write_bytes(spoil(data))
    if moved_on:
        zoo.put(make_source("org/010"), random_signature(10))
    rebuilt = open_packed(zoo, BASE, "lora")
    assert builds == ["learned", "learned"]
    assert len(rebuilt.sources) == 10 + moved_on
    if not moved_on:
        assert_same(first, rebuilt)
    assert_same(open_packed(zoo, BASE, "lora"), rebuilt)
    assert len(builds) == 2
    assert [path.name for path in zoo.packed_folder.iterdir()] == [folder.name]  # nothing half-written is left


def test_a_folder_of_another_base_in_its_place_is_not_believed(zoo, builds):
    open_packed(zoo, BASE, "lora")
    (folder,) = zoo.packed_folder.iterdir()
    index = folder / "index.json"
    index.write_bytes(spoil_index(base="org/other")(index.read_bytes()))
    assert open_packed(zoo, BASE, "lora").base == BASE


def test_a_matrix_that_cannot_be_written_is_used_all_the_same(zoo):
    kept = open_packed(zoo, BASE, "lora")
    shutil.rmtree(zoo.packed_folder)
    zoo.packed_folder.write_text("a file")
    assert_same(open_packed(zoo, BASE, "lora"), kept)


def test_matrices_outlive_no_store(zoo):
    open_packed(zoo, BASE, "lora")
    folder = zoo.folder
    zoo.close()
    shutil.rmtree(folder / "zoo")
    Zoo(folder, create=True).close()
    assert not (folder / "packed").exists()


def test_packing_is_the_same_every_time():
    assert_same(packed_of(zoo_of(5)), packed_of(zoo_of(5)))


# What an older version's reader made.


def test_prompts_of_an_older_reader_are_never_compared_with_newer_ones(zoo):
    """Their shift was another one: the mean of the tokens as they are."""
    for i in range(6):
        zoo.put(make_source(f"org/p{i}", method="prompt", reader=2 if i < 2 else READER_VERSION), with_shifts(10 * i))
    packed = open_packed(zoo, BASE, "prompt")
    assert [source.repo for source in packed.sources] == ["org/p2", "org/p3", "org/p4", "org/p5"]
    assert packed.left_out == {OLDER: 2}
    assert_same(open_packed(zoo, BASE, "prompt"), packed)


def test_of_older_prompts_alone_the_way_out_is_said(zoo):
    zoo.put(make_source("org/p", method="prompt", reader=2), with_shifts(0))
    with pytest.raises(EmptyZooError, match=r"read by an older hubrank.*`hubrank sync` reads them again"):
        open_packed(zoo, BASE, "prompt")


def test_loras_of_an_older_reader_mean_what_they_meant(zoo):
    zoo.put(make_source("org/old", reader=1), random_signature(40))
    assert open_packed(zoo, BASE, "lora").left_out == {}
