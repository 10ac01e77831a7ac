"""Where the target's own adapter goes, and how large it is: as in most of the zoo."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from hubrank.errors import BaseModelError
from hubrank.ranking.placement import usual_modules, usual_placement, usual_rank
from hubrank.signatures.canonical import sign_adapter
from hubrank.target.base import load_base
from hubrank.types import Adapter
from hubrank.zoo.packed import pack
from tests.ranking.builders import BASE, make_base, modules, packed_of, random_deltas, source

QUERY, VALUE, DENSE = "attention.self.query", "attention.self.value", "output.dense"
ALL = ["embeddings.word_embeddings", *modules(range(2), [QUERY, VALUE, DENSE]), "pooler.dense"]


def zoo_of(*names: tuple[str, ...]):
    """One source for each tuple of module names, in both layers."""
    random = np.random.default_rng(0)
    return packed_of([random_deltas(random, modules(range(2), some)) for some in names])


@pytest.mark.parametrize(
    ("ranks", "usual"),
    [([8, 8, 4], 8), ([4, 16, 16, 16], 16), ([1, 1, 1], 2), ([256, 256, 8], 32), ([2, 2, 32], 2), ([7], 7)],
)
def test_the_rank_of_most_within_bounds(ranks, usual):
    random = np.random.default_rng(0)
    packed = packed_of([random_deltas(random, modules()) for _ in ranks], ranks=ranks)
    assert usual_rank(packed) == usual


def test_modules_that_half_of_the_sources_adapt():
    packed = zoo_of((QUERY, VALUE), (QUERY, VALUE), (QUERY,), (QUERY, DENSE))
    assert usual_modules(packed, ALL) == tuple(modules(range(2), [QUERY, VALUE]))


def test_modules_come_in_the_models_order():
    packed = zoo_of((QUERY, VALUE), (QUERY, VALUE))
    backwards = list(reversed(ALL))
    assert list(usual_modules(packed, backwards)) == [name for name in backwards if QUERY in name or VALUE in name]


def test_the_commonest_site_where_none_reaches_half():
    packed = zoo_of((QUERY,), (VALUE,), (DENSE,), (DENSE,), ("intermediate.dense",))
    assert usual_modules(packed, ALL) == tuple(modules(range(2), [DENSE]))


def test_a_head_around_the_model_changes_nothing():
    """Adapters of BertForSequenceClassification say bert.encoder..., the model that is tuned has no such prefix."""
    random = np.random.default_rng(0)
    packed = packed_of([random_deltas(random, [f"bert.{name}" for name in modules()]) for _ in range(3)])
    assert usual_modules(packed, ALL) == tuple(modules())


def test_a_base_without_those_modules():
    packed = zoo_of((QUERY,), (QUERY,))
    with pytest.raises(BaseModelError, match=r"tiny/bert: has none of the modules .* such as encoder.0.attention.self.query"):
        usual_modules(packed, ["h.0.attn.c_attn", "h.1.attn.c_attn"])


# The other methods.


def packed_by(method, where, *, variants=("",), ranks=(4,), shifts=False):
    """A zoo of one method with an update or a shift at each of some paths."""
    random = np.random.default_rng(0)
    pairs = []
    for i in range(max(len(variants), len(ranks))):
        deltas = random_deltas(random, where)
        if shifts:
            deltas = [replace(d, down=d.down[:0], up=d.up[:, :0], shift=d.up[:, 0].copy()) for d in deltas]
        found = source(f"org/a{i}", rank=ranks[i % len(ranks)], method=method)
        pairs.append((replace(found, variant=variants[i % len(variants)]), sign_adapter(Adapter(BASE, method, tuple(deltas)))))
    return pack(BASE, method, 1, pairs)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return load_base(make_base(tmp_path_factory.mktemp("placed") / "base"))[0]


def test_bottlenecks_of_the_commonest_kind_and_layers(model):
    where = ["encoder.layer.1.output.adapters"]
    placed = usual_placement(packed_by("bottleneck", where, variants=("par_bn", "seq_bn", "par_bn"), ranks=(24, 24, 48)), model)
    assert (placed.variant, placed.size, placed.left_out) == ("par_bn", 24, (0,))
    assert usual_placement(packed_by("bottleneck", where, variants=("mam",)), model).variant == "par_bn"
    both = [*where, "encoder.layer.1.attention.output.adapters"]
    assert usual_placement(packed_by("bottleneck", both, variants=("bottleneck",)), model).variant == "double_seq_bn"
    assert usual_placement(packed_by("bottleneck", both[1:], variants=("bottleneck",)), model).variant == "attention_bn"


def test_prefixes_and_prompts(model):
    where = [f"layers.{layer}.prefix.product" for layer in (0, 1)]
    placed = usual_placement(packed_by("prefix", where, ranks=(16, 16, 100)), model)
    assert (placed.size, placed.left_out) == (16, ())
    assert usual_placement(packed_by("prompt", ["layers.0.prompt"], ranks=(500,), shifts=True), model).size == 128


def test_biases_and_norms_that_most_tune(model):
    where = ["encoder.layer.0.attention.self.query.bias", "encoder.layer.1.output.LayerNorm.weight"]
    placed = usual_placement(packed_by("bias", where, shifts=True), model)
    assert set(placed.modules) == set(where)


def test_scales_as_long_as_the_inputs(model):
    """Of the second half of the feed-forward block, 64 wide at its input and 32 at its output."""
    random = np.random.default_rng(0)
    inner = random_deltas(random, ["encoder.layer.0.output.dense"], d=64)
    outer = random_deltas(random, ["encoder.layer.0.attention.self.key"])
    deltas = [replace(d, down=d.down[:0], up=d.up[:, :0], shift=d.up[:, 0].copy()) for d in (*inner, *outer)]
    packed = pack(BASE, "ia3", 1, [(source("org/a", method="ia3"), sign_adapter(Adapter(BASE, "ia3", tuple(deltas))))])
    placed = usual_placement(packed, model)
    assert placed.modules == ("encoder.layer.0.attention.self.key", "encoder.layer.0.output.dense")
    assert placed.inputs == ("encoder.layer.0.output.dense",)
