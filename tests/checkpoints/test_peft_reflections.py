"""HRA against the real peft: exact with the base weights, the reflections of the input without them."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hubrank.checkpoints.architectures import site_of
from hubrank.checkpoints.peft_reflections import read_hra
from hubrank.errors import AdapterError
from tests.checkpoints.peft_models import assert_exact, tune

QUERY = "base_model.model.encoder.layer.0.attention.self.query"


@pytest.mark.parametrize("gs", [False, True])
@pytest.mark.parametrize(("kind", "targets", "rank"), [("bert", ["query", "dense"], 4), ("llama", ["q_proj", "v_proj"], 5)])
def test_hra_is_what_merging_adds(kind, targets, rank, gs, tmp_path):
    from peft import HRAConfig

    tuned = tune(kind, HRAConfig(r=rank, apply_GS=gs, target_modules=targets), tmp_path)
    adapter = tuned.read(base=True)
    assert_exact(tuned, adapter)
    assert (adapter.method, adapter.variant, adapter.warnings) == ("rotation", "hra", ())
    assert {delta.up.shape[1] for delta in adapter.deltas} == {rank}
    alone = tuned.read()
    assert "without the base" in alone.warnings[0]
    deltas = {delta.site: delta for delta in alone.deltas}
    for name, change in tuned.changes.items():
        delta = deltas[site_of(name.removesuffix(".weight"))]
        np.testing.assert_allclose(tuned.base[name] @ (delta.up @ delta.down), change, atol=1e-5)


@given(st.integers(0, 2**32 - 1), st.integers(1, 4), st.booleans())
def test_lengths_and_signs_of_the_vectors_do_not_matter(seed, rank, gs):
    rng = np.random.default_rng(seed)
    u = rng.standard_normal((6, rank))
    sizes = rng.uniform(0.1, 10, rank) * rng.choice([-1, 1], rank)

    def product(u):
        (delta,) = read_hra({"r": rank, "apply_GS": gs}, {f"{QUERY}.hra_u": u.astype(np.float32)}, "b").deltas
        return delta.up @ delta.down

    one = product(u)
    np.testing.assert_allclose(product(u * sizes), one, atol=1e-4)
    turned = np.eye(6) + one
    np.testing.assert_allclose(turned @ turned.T, np.eye(6), atol=1e-4)


@pytest.mark.parametrize(
    ("u", "config", "reason"),
    [
        (np.ones((8, 2)), {"r": 3}, "shape mismatch"),
        (np.ones((2, 3)), {"r": 3}, "shape mismatch"),
        (np.ones(8), {"r": 1}, "shape mismatch"),
        (np.zeros((8, 2)), {"r": 2}, "not finite"),
        (np.ones((8, 2)), {"r": 2, "apply_GS": True}, None),  # rounding decides what is left of the second
        (np.zeros((8, 2)), {"r": 2, "apply_GS": True}, "not finite"),
        (np.ones((8, 2)), {"r": 2, "apply_GS": 1}, "bad config"),
        (np.ones((8, 2)), {"r": 1 << 11}, "bad config"),
    ],
)
def test_an_hra_that_is_wrong(u, config, reason):
    try:
        read_hra(config, {f"{QUERY}.hra_u": u.astype(np.float32)}, "b")
    except AdapterError as error:
        assert error.reason == (reason or "not finite")  # noqa: PT017
    else:
        assert reason is None
