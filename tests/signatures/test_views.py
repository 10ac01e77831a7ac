"""The three views: cosines against dense matrices, and everything an adapter may be rewritten as without changing them."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hubrank.checkpoints.architectures import site_of
from hubrank.checkpoints.peft_lora import read_lora
from hubrank.signatures.canonical import canonical_factors, sign_adapter
from hubrank.signatures.encoding import decode_signature, encode_signature
from hubrank.signatures.views import THREE_VIEWS, WeightedView, cosine, similarity, site_cosines
from hubrank.types import Signature
from tests.builders import MODULES, delta, lora_tensors, random_factors, random_signature, sign

SITE = site_of(MODULES[0])
VIEWS = (*THREE_VIEWS, WeightedView("compute", 0.0), WeightedView("read", 1.0), WeightedView("write", 1.0))

seeds = st.integers(0, 10**6)
ranks = st.integers(1, 4)


def dense_view(update: np.ndarray, view: WeightedView) -> np.ndarray:
    """The view as one matrix, from the update alone: powers of its Gram matrices by their eigenvectors."""
    sizes, directions = np.linalg.eigh(update @ update.T if view.view == "write" else update.T @ update)
    kept = sizes > 1e-6 * sizes[-1]
    if view.view == "compute":  # U S^p V^T = dW (dW^T dW)^((p - 1) / 2)
        return update @ (directions[:, kept] * sizes[kept] ** ((view.power - 1) / 2)) @ directions[:, kept].T
    return (directions[:, kept] * sizes[kept] ** (view.power / 2)) @ directions[:, kept].T


def frobenius(a: np.ndarray, b: np.ndarray) -> float:
    return float((a * b).sum() / (np.linalg.norm(a) * np.linalg.norm(b)))


@pytest.mark.parametrize("view", VIEWS, ids=str)
@given(seed=seeds, rank_a=ranks, rank_b=ranks, d_out=st.integers(6, 14), d_in=st.integers(6, 14))
def test_a_cosine_is_the_frobenius_cosine_of_the_dense_matrices(view, *, seed, rank_a, rank_b, d_out, d_in):
    a = random_factors(seed, rank=rank_a, d_out=d_out, d_in=d_in)
    b = random_factors(seed + 1, rank=rank_b, d_out=d_out, d_in=d_in)
    ours = cosine(*canonical_factors([delta(SITE, *a)]), *canonical_factors([delta(SITE, *b)]), view)
    updates = (up.astype(np.float64) @ down.astype(np.float64) for up, down in (a, b))
    assert ours == pytest.approx(frobenius(*(dense_view(update, view) for update in updates)), abs=1e-4)


@pytest.mark.parametrize("view", VIEWS, ids=str)
def test_an_adapter_is_wholly_similar_to_itself_and_to_its_multiples(view):
    up, down = random_factors(0, rank=3)
    a = sign([delta(SITE, up, down)])
    assert similarity(a, a, view) == pytest.approx(1.0, abs=1e-5)
    assert similarity(a, sign([delta(SITE, 1e-12 * up, down)]), view) == pytest.approx(1.0, abs=1e-5)
    opposite = -1.0 if view.view == "compute" else 1.0  # where it reads and writes has no sign
    assert similarity(a, sign([delta(SITE, -up, down)]), view) == pytest.approx(opposite, abs=1e-5)


def test_norms_are_those_of_the_whole_spectrum():
    left, right = np.eye(100)[:, :80], np.eye(100)[:80]
    sizes = np.linspace(2.0, 1.0, 80)
    (a,) = canonical_factors([delta(SITE, left * sizes, right)])  # rank 80, of which 64 are kept
    (first,) = canonical_factors([delta(SITE, left[:, :1], right[:1])])
    for view in VIEWS:
        powers = sizes**view.power
        assert cosine(a, first, view) == pytest.approx(powers[0] / np.linalg.norm(powers), abs=1e-5)
        assert cosine(a, a, view) == pytest.approx((powers[:64] ** 2).sum() / (powers**2).sum(), abs=1e-5)


def test_sites_that_only_one_has_are_left_out_of_the_mean():
    a, b = random_signature(1), random_signature(2)
    half = Signature(b.factors[:2])
    for view in THREE_VIEWS:
        both = site_cosines(a, b, view)
        assert list(both) == [str(site) for site in a.sites]
        assert site_cosines(a, half, view) == {str(site): both[str(site)] for site in a.sites[:2]}
        assert similarity(a, half, view) == pytest.approx(np.mean([both[str(site)] for site in a.sites[:2]]))
    elsewhere = random_signature(3, sites=["encoder.layer.7.attention.self.query"])
    assert np.isnan(similarity(a, elsewhere, THREE_VIEWS[0]))


def test_sites_of_other_shapes_are_not_compared():
    assert np.isnan(similarity(random_signature(1), random_signature(2, d_in=12), THREE_VIEWS[0]))
    assert np.isnan(similarity(random_signature(1), random_signature(2, d_out=12), THREE_VIEWS[0]))


# What an adapter may be rewritten as. Each takes (up, down, rng) to other factors of the same update.


def by_basis_change(up, down, rng):
    """GL(r): (up M, M^-1 down), M with singular values from 0.2 to 5."""
    r = len(down)
    left, right = (np.linalg.qr(rng.standard_normal((r, r)))[0] for _ in "lr")
    sizes = 5.0 ** rng.uniform(-1, 1, r)
    return up @ (left * sizes) @ right, right.T @ (left / sizes).T @ down


def by_zero_padding(up, down, rng):
    return np.pad(up, ((0, 0), (0, 3))), np.pad(down, ((0, 3), (0, 0)))


def by_half_padding(up, down, rng):
    """What a fresh LoRA of larger rank looks like: random rows in A, zeros in B."""
    return np.pad(up, ((0, 0), (0, 3))), np.concatenate([down, rng.standard_normal((3, down.shape[1]))])


def by_rescaling(up, down, rng):
    """Each rank's column and row by its own positive factor and its inverse."""
    sizes = 10.0 ** rng.uniform(-2, 2, len(down))
    return up * sizes, down / sizes[:, None]


def by_signs_and_order(up, down, rng):
    order, signs = rng.permutation(len(down)), rng.choice([-1.0, 1.0], len(down))
    return (up * signs)[:, order], (down * signs[:, None])[order]


def by_overall_scale(up, down, rng):
    return up * 10.0 ** rng.uniform(-10, 10), down


REWRITINGS = (by_basis_change, by_zero_padding, by_half_padding, by_rescaling, by_signs_and_order, by_overall_scale)


@pytest.mark.parametrize("rewrite", REWRITINGS)
@given(seed=seeds, rank=ranks)
def test_similarity_to_a_third_does_not_see_how_an_adapter_is_written(rewrite, seed, rank):
    rng = np.random.default_rng(seed)
    factors = [random_factors(seed + i, rank=rank) for i in range(2)]
    sites = [site_of(name) for name in MODULES[:2]]
    plain = sign([delta(site, *f) for site, f in zip(sites, factors, strict=True)])
    other = sign(
        [delta(site, *rewrite(*(x.astype(np.float64) for x in f), rng)) for site, f in zip(sites, factors, strict=True)]
    )
    third = random_signature(seed + 100, sites=MODULES[:2], rank=3)
    stored = decode_signature(encode_signature(other))
    for view in VIEWS:
        truth = similarity(plain, third, view)
        assert similarity(other, third, view) == pytest.approx(truth, abs=1e-4)
        assert similarity(third, other, view) == pytest.approx(truth, abs=1e-4)
        assert similarity(stored, third, view) == pytest.approx(truth, abs=1e-2)


def as_float16(array):
    return array.astype(np.float16).astype(np.float32)


def as_bfloat16(array):
    """Rounded to the nearest, ties to even, as torch does."""
    bits = array.astype(np.float32).view(np.uint32)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) & np.uint32(0xFFFF0000)).view(np.float32)


@pytest.mark.parametrize(("rounded", "precision"), [(as_float16, 2**-11), (as_bfloat16, 2**-8)])
@given(seed=seeds, rank=ranks)
def test_half_precision_moves_a_similarity_within_its_precision(rounded, precision, seed, rank):
    rng = np.random.default_rng(seed)
    left, right = (np.linalg.qr(rng.standard_normal((16, rank)))[0] for _ in "lr")
    factors = (left * rng.uniform(0.5, 1, rank)).astype(np.float32), right.T.astype(np.float32)
    third = random_signature(seed, sites=MODULES[:1], rank=3)
    plain, other = sign([delta(SITE, *factors)]), sign([delta(SITE, *map(rounded, factors))])
    assert not np.array_equal(plain.factors[0].u, other.factors[0].u)
    for view in VIEWS:
        # Rounding turns a direction by the precision over its share of the largest singular value, here at least a half.
        assert similarity(other, third, view) == pytest.approx(similarity(plain, third, view), abs=4 * precision)


@pytest.mark.parametrize("prefix", ["base_model.model.", "base_model.model.bert.", "bert.", ""])
@pytest.mark.parametrize("adapter", [None, "default"])
def test_key_prefix_and_adapter_name_are_nothing_to_a_signature(prefix, adapter):
    config = {"r": 2, "lora_alpha": 4}
    plain = sign_adapter(read_lora(config, lora_tensors(), "b"))
    other = sign_adapter(read_lora(config, lora_tensors(prefix=prefix, adapter=adapter), "b"))
    third = random_signature(5)
    for view in VIEWS:
        assert site_cosines(plain, third, view) == site_cosines(other, third, view)
