"""OFT and BOFT against the real peft: exact with the base weights, a rotation of the input without them."""

from __future__ import annotations

import numpy as np
import pytest

from hubrank.checkpoints import leading, peft_rotations
from hubrank.checkpoints.architectures import site_of
from hubrank.checkpoints.peft_rotations import read_boft, read_oft
from hubrank.errors import AdapterError
from hubrank.signatures.canonical import sign_adapter
from tests.checkpoints.peft_models import assert_exact, tune

QUERY = "base_model.model.encoder.layer.0.attention.self.query"
LINEAR = ["query", "value", "dense"]
OFT = {
    "cayley": {"oft_block_size": 8, "use_cayley_neumann": False},
    "defaults": {},
    "shared blocks": {"oft_block_size": 8, "block_share": True},
    "constrained": {"oft_block_size": 8, "coft": True, "eps": 0.5},
    "a block size that peft adjusts": {"oft_block_size": 7},
    **{f"{n} terms": {"r": 4, "oft_block_size": 0, "num_cayley_neumann_terms": n} for n in (2, 3, 4, 5, 8)},
}
BOFT = {
    "by size": {"boft_block_size": 8},
    "by number": {"boft_block_size": 0, "boft_block_num": 4},
    "odd": {"boft_block_size": 1},
}


def oft(folder, case):
    from peft import OFTConfig

    config = {"target_modules": LINEAR, "oft_block_size": 16, **OFT[case]}
    return tune("bert", OFTConfig(**config), folder, sd=0.1)


def boft(folder, case="by size"):
    from peft import BOFTConfig

    return tune("bert", BOFTConfig(target_modules=LINEAR, **BOFT[case]), folder)


@pytest.mark.parametrize("case", OFT)
def test_oft_with_the_base_is_the_exact_change(case, tmp_path):
    tuned = oft(tmp_path, case)
    adapter = tuned.read(base=True)
    assert_exact(tuned, adapter)
    assert (adapter.method, adapter.variant, adapter.warnings) == ("rotation", "oft", ())


@pytest.mark.parametrize("case", BOFT)
def test_boft_with_the_base_is_the_exact_change(case, tmp_path):
    tuned = boft(tmp_path, case)
    adapter = tuned.read(base=True)
    assert_exact(tuned, adapter)
    assert (adapter.method, adapter.variant, adapter.warnings) == ("rotation", "boft", ())


@pytest.mark.parametrize("make", [lambda folder: oft(folder, "defaults"), lambda folder: oft(folder, "cayley"), boft])
def test_without_the_base_it_is_the_rotation_of_the_input(make, tmp_path):
    tuned = make(tmp_path)
    adapter = tuned.read()
    assert "without the base" in adapter.warnings[0]
    deltas = {delta.site: delta for delta in adapter.deltas}
    for name, change in tuned.changes.items():
        module = name.removesuffix(".weight")
        delta, weight = deltas.pop(site_of(module)), tuned.base[name]
        turned = weight + weight @ (delta.up @ delta.down)
        if delta.shift is not None:
            scale = tuned.tensors[f"base_model.model.{module}.boft_s"]
            np.testing.assert_allclose(np.exp(delta.shift), np.abs(scale[:, 0]), rtol=1e-4)
            turned *= scale
        np.testing.assert_allclose(turned, weight + change, atol=1e-5)
    assert not deltas


def test_a_shared_block_needs_the_base(tmp_path):
    tuned = oft(tmp_path, "shared blocks")
    with pytest.raises(AdapterError, match="needs base"):
        tuned.read()


def test_an_oft_before_the_series_changed_is_said(tmp_path):
    tuned = oft(tmp_path, "defaults")
    assert "0.18" in tuned.read(base=True, peft_version=None).warnings[0]


def test_of_large_rotations_the_largest_directions_are_kept(tmp_path, monkeypatch):
    tuned = oft(tmp_path, "cayley")
    whole = tuned.read()
    monkeypatch.setattr(peft_rotations, "WHOLE", 0)
    monkeypatch.setattr(leading, "KEPT", 12)
    adapter = tuned.read()
    for kept, delta in zip(adapter.deltas, whole.deltas, strict=True):
        values = np.linalg.svd(delta.up @ delta.down, compute_uv=False)
        assert kept.up.shape[1] == kept.down.shape[0] == 12
        np.testing.assert_allclose(kept.spectrum, values, atol=1e-5)
        np.testing.assert_allclose(np.linalg.svd(kept.up @ kept.down, compute_uv=False)[:12], values[:12], atol=1e-5)
        lost = np.linalg.norm(delta.up @ delta.down - kept.up @ kept.down)
        np.testing.assert_allclose(lost, np.linalg.norm(values[12:]), atol=1e-4)


def test_a_large_butterfly_has_the_signature_of_its_whole(monkeypatch):
    rng = np.random.default_rng(0)
    name = "base_model.model.encoder.layer.0.attention.self.query"
    tensors = {
        f"{name}.boft_R": rng.standard_normal((2, 4, 4, 4)).astype(np.float32),
        f"{name}.boft_s": rng.uniform(0.5, 2, (9, 1)).astype(np.float32),
    }
    whole = read_boft({}, tensors, "b")
    monkeypatch.setattr(peft_rotations, "WHOLE", 0)
    part = read_boft({}, tensors, "b")
    assert [delta.spectrum is None for delta in (*whole.deltas, *part.deltas)] == [True, False]
    for one, other in zip(sign_adapter(whole).factors, sign_adapter(part).factors, strict=True):
        np.testing.assert_allclose(one.spectrum, other.spectrum, rtol=1e-4)
        np.testing.assert_allclose((one.u * one.s) @ one.v.T, (other.u * other.s) @ other.v.T, atol=1e-4 * one.s[0])


@pytest.mark.parametrize(("stages", "blocks", "size"), [(2, 4, 4), (3, 4, 8), (3, 8, 2), (2, 2, 6)])
def test_a_butterfly_of_several_stages_is_peft_s(stages, blocks, size):
    """Its extension for more than one stage needs a GPU; this is its arithmetic with its own permutations."""
    import torch
    from peft.tuners.boft.layer import BOFTLayer

    torch.manual_seed(0)
    width = blocks * size
    r, s, weight = torch.randn(stages, blocks, size, size), torch.rand(7, 1) + 0.5, torch.randn(7, width)
    rotation = torch.eye(width)
    for stage in range(stages):
        indices = BOFTLayer.block_butterfly_perm(None, width, int(blocks / 2**stage), size // 2, stages - 1)
        p = BOFTLayer.perm2mat(None, indices)
        turned = BOFTLayer.cayley_batch(None, r[stage])
        rotation = p @ torch.block_diag(*turned) @ p.T @ rotation
    change = ((rotation @ weight.T).T * s - weight).numpy()
    tensors = {f"{QUERY}.boft_R": r.numpy(), f"{QUERY}.boft_s": s.numpy()}
    base = {"encoder.layer.0.attention.self.query.weight": weight.numpy()}
    (delta,) = read_boft({}, tensors, "b", base_tensors=base).deltas
    np.testing.assert_allclose(delta.up @ delta.down, change, atol=1e-4)
    (delta,) = read_boft({}, tensors, "b").deltas
    np.testing.assert_allclose(np.eye(width) + delta.up @ delta.down, rotation.numpy().T, atol=1e-4)


@pytest.mark.parametrize(
    ("r", "s", "reason"),
    [
        ((1, 4, 8, 7), (8, 1), "shape mismatch"),
        ((1, 4, 8, 8), (8, 2), "shape mismatch"),
        ((1, 4, 8, 8), (8,), "shape mismatch"),
        ((4, 8, 8), (8, 1), "shape mismatch"),
        ((0, 4, 8, 8), (8, 1), "shape mismatch"),
        ((1, 4, 8, 8), None, "incomplete"),
        ((2, 3, 4, 4), (8, 1), "shape mismatch"),
        ((2, 4, 3, 3), (8, 1), "shape mismatch"),
        ((99, 4, 2, 2), (8, 1), "shape mismatch"),
        ((1, 1, 4097, 4097), (8, 1), "too large"),
        ((2, 1 << 20, 2, 2), (8, 1), "too large"),
    ],
)
def test_a_boft_that_is_wrong_or_too_large(r, s, reason):
    shapes = {"boft_R": r, "boft_s": s}
    tensors = {f"{QUERY}.{name}": np.zeros(shape, np.float32) for name, shape in shapes.items() if shape is not None}
    with pytest.raises(AdapterError) as caught:
        read_boft({}, tensors, "b")
    assert caught.value.reason == reason


@pytest.mark.parametrize(
    ("config", "shape", "reason"),
    [
        ({}, (4, 29), "shape mismatch"),
        ({}, (4, 0), "shape mismatch"),
        ({}, (4,), "shape mismatch"),
        ({}, (1, (1 << 13) * ((1 << 13) - 1) // 2), "too large"),
        ({"num_cayley_neumann_terms": 10**9}, (4, 28), "bad config"),
        ({"num_cayley_neumann_terms": 0}, (4, 28), "bad config"),
        ({"coft": True, "eps": "big"}, (4, 28), "bad config"),
        ({"use_cayley_neumann": "no"}, (4, 28), "bad config"),
    ],
)
def test_an_oft_that_is_wrong_or_too_large(config, shape, reason):
    tensors = {f"{QUERY}.oft_R.weight": np.broadcast_to(np.float32(0.1), shape)}
    with pytest.raises(AdapterError) as caught:
        read_oft({"oft_block_size": 8, **config}, tensors, "b")
    assert caught.value.reason == reason


@pytest.mark.parametrize(
    ("name", "config"),
    [("oft_r", {"r": 8}), ("oft_embedding_R.weight", {"oft_block_size": 8}), ("oft_R.weight", {"r": 8})],
)
def test_an_oft_of_an_older_peft_or_of_an_embedding_is_refused(name, config):
    with pytest.raises(AdapterError, match="unsupported variant"):
        read_oft(config, {f"{QUERY}.{name}": np.ones((4, 28), np.float32)}, "b")


@pytest.mark.parametrize("config", [{}, {"use_cayley_neumann": False}])
def test_a_rotation_that_overflows_is_not_finite(config):
    tensors = {f"{QUERY}.oft_R.weight": np.full((4, 28), 3e38, np.float32)}
    try:
        adapter = read_oft({"oft_block_size": 8, **config}, tensors, "b")
    except AdapterError as error:
        assert error.reason == "not finite"  # noqa: PT017
    else:
        assert all(np.isfinite(delta.up).all() for delta in adapter.deltas)
