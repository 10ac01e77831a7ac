"""Where the target's own adapter goes, and how large it is: as in most of the zoo."""

from __future__ import annotations

import numpy as np
import pytest

from hubrank.errors import BaseModelError
from hubrank.ranking.placement import usual_modules, usual_rank
from tests.ranking.builders import modules, packed_of, random_deltas

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
