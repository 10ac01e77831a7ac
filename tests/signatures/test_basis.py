"""The zoo's basis: exact when it has room for every direction, and never claiming more than it holds."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hubrank.checkpoints.architectures import site_of
from hubrank.signatures.basis import Basis, SiteBasis, energy_kept, learn_basis, project, projected_cosines
from hubrank.signatures.views import BY_POWER, THREE_VIEWS, site_cosines
from hubrank.types import Delta, Signature
from tests.builders import MODULES, delta, dense, random_factors, random_signature, sign

SITES = tuple(site_of(name) for name in MODULES)
SHAPES = dict.fromkeys(SITES, (16, 16))


def zoo_of(n: int, **options) -> list[Signature]:
    return [random_signature(seed, **options) for seed in range(n)]


@given(seed=st.integers(0, 10**6), rank=st.integers(1, 4))
def test_with_room_for_every_direction_projected_cosines_are_the_exact_ones(seed, rank):
    zoo = [random_signature(seed + i, rank=rank) for i in range(3)]
    basis = learn_basis(zoo, SHAPES, 16)
    projected = [project(signature, basis) for signature in zoo]
    for projection in projected:
        assert projection.there.all()
        assert energy_kept(projection) == pytest.approx(1.0, abs=1e-4)
    found = projected_cosines(projected[0], projected[1])
    for i, view in enumerate(THREE_VIEWS):
        exact = site_cosines(zoo[0], zoo[1], view)
        assert found[:, i] == pytest.approx([exact[str(site)] for site in SITES], abs=1e-4)


@pytest.mark.parametrize(("n", "d"), [(3, 40), (30, 10)])  # fewer stacked directions than dimensions, and more
def test_directions_are_orthonormal_and_the_leading_ones_of_the_stack(n, d):
    zoo = zoo_of(n, d_out=d, d_in=d, sites=MODULES[:1])
    basis = learn_basis(zoo, {SITES[0]: (d, d)}, 4).sites[SITES[0]]
    for side in (basis.write, basis.read):
        assert side.shape == (d, 4)
        np.testing.assert_allclose(side.T @ side, np.eye(4), atol=1e-5)
    stacks = {
        "read": np.concatenate([s.factors[0].v for s in zoo], axis=1),
        "write": np.concatenate(
            [s.factors[0].u * np.sqrt(s.factors[0].s / np.linalg.norm(s.factors[0].spectrum)) for s in zoo], axis=1
        ),
    }
    for name, stack in stacks.items():
        best = np.linalg.svd(stack.astype(np.float64))[0][:, :4]
        np.testing.assert_allclose(getattr(basis, name) @ getattr(basis, name).T, best @ best.T, atol=1e-4)


def test_fewer_directions_than_asked_for_leave_the_rest_empty():
    (one,) = zoo_of(1, sites=MODULES[:1], rank=2)
    basis = learn_basis([one], {SITES[0]: (16, 16)}, 8)
    assert basis.sites[SITES[0]].read.shape == (16, 2)
    projection = project(one, basis)
    assert projection.u.shape == projection.v.shape == (2, 8)
    assert not projection.u[:, 2:].any()
    assert energy_kept(projection) == pytest.approx(1.0, abs=1e-5)


def test_what_a_projection_keeps_is_what_the_dense_projection_keeps():
    zoo = zoo_of(5, sites=MODULES[:1], rank=3)
    basis = learn_basis(zoo, {SITES[0]: (16, 16)}, 4)
    stranger = random_signature(99, sites=MODULES[:1], rank=3)
    projection = project(stranger, basis)
    write, read = basis.sites[SITES[0]].write, basis.sites[SITES[0]].read
    f = stranger.factors[0]
    computes, reads, writes = dense(f), f.v @ f.v.T, f.u @ np.diag(np.sqrt(f.s)) @ f.u.T
    pairs = [(computes, write, read), (reads, read, read), (writes, write, write)]
    kept = [np.linalg.norm(left.T @ full @ right) ** 2 / np.linalg.norm(full) ** 2 for full, left, right in pairs]
    assert projected_cosines(projection, projection)[0] == pytest.approx(kept, abs=1e-5)
    assert energy_kept(projection) == pytest.approx(np.mean(kept), abs=1e-5)
    assert 0 < energy_kept(projection) < 0.9


def test_a_learned_basis_holds_a_family_that_a_random_one_of_its_size_does_not():
    rng = np.random.default_rng(0)
    ups, downs = (np.linalg.qr(rng.standard_normal((40, 4)))[0] for _ in "ud")
    family = [
        sign([delta(SITES[0], ups @ rng.standard_normal((4, 2)), rng.standard_normal((2, 4)) @ downs.T)]) for _ in range(8)
    ]
    learned = learn_basis(family[:-1], {SITES[0]: (40, 40)}, 4)
    chance = Basis(4, {SITES[0]: SiteBasis(*(np.linalg.qr(rng.standard_normal((40, 4)))[0].astype(np.float32) for _ in "ud"))})
    held, lost = (energy_kept(project(family[-1], basis)) for basis in (learned, chance))
    assert held > 0.999
    assert lost < 0.3


def test_sites_that_an_adapter_lacks_or_has_with_other_shapes_have_no_columns():
    basis = learn_basis(zoo_of(3), SHAPES, 8)
    whole = random_signature(7)
    odd = random_signature(7, sites=MODULES[1:2], d_in=12)
    mixed = Signature((whole.factors[0], *odd.factors, whole.factors[3]))
    part, full = project(mixed, basis), project(whole, basis)
    assert part.there.tolist() == [True, False, False, True]
    for name in ("u", "v", "weights"):
        whole_columns = getattr(full, name)
        ends = [whole_columns[slice(*full.starts[i : i + 2])] for i in (0, 3)]
        assert np.array_equal(getattr(part, name), np.concatenate(ends))
    cosines = projected_cosines(part, full)
    assert np.isnan(cosines[1:3]).all()
    assert np.isfinite(cosines[[0, 3]]).all()


def test_without_a_common_site_the_energy_is_unknown():
    basis = learn_basis(zoo_of(3), SHAPES, 8)
    nowhere = project(random_signature(0, sites=["encoder.layer.9.attention.self.query"]), basis)
    assert not nowhere.there.any()
    assert nowhere.u.shape == (0, 8)
    assert np.isnan(energy_kept(nowhere))


def test_adapters_of_another_shape_do_not_enter_the_basis_of_a_site():
    zoo = zoo_of(2, sites=MODULES[:1])
    shapes = {SITES[0]: (16, 16)}
    plain = learn_basis(zoo, shapes, 4).sites[SITES[0]]
    mixed = learn_basis([*zoo, random_signature(9, sites=MODULES[:1], d_out=12)], shapes, 4).sites[SITES[0]]
    assert np.array_equal(plain.write, mixed.write)
    assert np.array_equal(plain.read, mixed.read)


def test_a_large_zoo_is_sampled_evenly():
    # One family in the first half and another in the second: a basis of both holds both.
    rng = np.random.default_rng(0)
    first, second = np.eye(12)[:, :2], np.eye(12)[:, 2:4]
    zoo = [
        sign([delta(SITES[0], side @ rng.standard_normal((2, 2)), rng.standard_normal((2, 2)) @ side.T)])
        for side in (first, second)
        for _ in range(4500)
    ]
    basis = learn_basis(zoo, {SITES[0]: (12, 12)}, 4).sites[SITES[0]]
    for side in (basis.read, basis.write):
        assert side.shape == (12, 4)
        np.testing.assert_allclose(np.linalg.norm(side[:4], axis=0), 1.0, atol=1e-4)


def test_rank_and_shape_may_differ_between_sites():
    deltas = [delta(SITES[0], *random_factors(0, rank=1, d_out=8, d_in=20)), delta(SITES[1], *random_factors(1, rank=4))]
    signature = sign(deltas)
    basis = learn_basis([signature], {SITES[0]: (8, 20), SITES[1]: (16, 16)}, 8)
    projection = project(signature, basis)
    assert projection.there.all()
    assert energy_kept(projection) == pytest.approx(1.0, abs=1e-5)


def test_where_reading_counts_by_size_the_basis_is_learned_by_size():
    """Pfeiffer adapters read in dozens of directions, few of which say much."""
    rng = np.random.default_rng(8)
    zoo, shapes = [], {SITES[0]: (40, 40)}
    for _ in range(6):
        strong, faint = rng.standard_normal((2, 40)), rng.standard_normal((10, 40))
        down = np.concatenate([strong * 5, faint * 0.2]).astype(np.float32)
        up = np.linalg.qr(rng.standard_normal((40, 12)))[0].astype(np.float32)
        zoo.append(sign([Delta(SITES[0], down=down, up=up)]))

    def kept(basis):
        return np.mean([energy_kept(project(one, basis), ["read"]) for one in zoo])

    by_size, alike = learn_basis(zoo, shapes, 12, views=BY_POWER), learn_basis(zoo, shapes, 12)
    assert (by_size.views, alike.views) == (BY_POWER, THREE_VIEWS)
    assert kept(by_size) > kept(replace(alike, views=BY_POWER)) + 0.1
