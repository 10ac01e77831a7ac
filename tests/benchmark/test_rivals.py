"""Values of the rivals from small arrays whose best source is known, and what each says when it lacks something."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from hubrank.benchmark.rivals import RIVALS, SourceArrays, TargetArrays, TunedArrays, rank_rivals
from hubrank.ranking.rivals.features import affine_map

D = 6


def make(seed=0, n=4):
    """Four sources of which the third is the target's twin in every array, and the last of another shape."""
    random = np.random.default_rng(seed)
    labels = np.arange(40) % 2
    base = random.normal(size=(40, D)).astype(np.float32)
    # What the twin makes of the rows tells the labels apart, and so does its map of the base's features.
    base[:, 0] = 1 + 0.2 * (labels - 0.5)
    sources = []
    for i in range(n):
        own_base = random.normal(size=(60, D)).astype(np.float32) + (base.mean(axis=0) * 50 if i == 2 else 0)
        own = own_base @ np.diag([100 if i == 2 else 0.01, *np.ones(D - 1)]).astype(np.float32)
        tensors = {"x.lora_A.weight": random.normal(size=(2, D)), "x.lora_B.weight": random.normal(size=(D, 2))}
        sources.append(
            SourceArrays(
                logme={"t": float(i == 2)},
                h_score={"t": float(i == 2)},
                esm=affine_map(before=own_base, after=own),
                own_base=own_base,
                delta=random.normal(size=D),
                fisher=random.random(size=9),
                tensors=tensors,
                rows=[10, 20, 40, 30][i],
                family="nli" if i == 2 else "sentiment",
                bytes=100.0,
                seconds={"features": 2.0, "esm": 1.0, "own_base": 0.5, "delta": 0.1, "fisher": 3.0},
            )
        )
    sources[-1] = replace(sources[-1], tensors={"x.lora_A.weight": np.ones((3, D)), "x.lora_B.weight": np.ones((D, 3))})
    twin = sources[2]
    tuned = TunedArrays(delta=twin.delta * 2, fisher=twin.fisher * 1.01, tensors=twin.tensors)
    target = TargetArrays(base, labels, (tuned, tuned), {"tuning": 7.0, "base": 0.2})
    return sources, target


def test_every_rival_finds_the_twin():
    sources, target = make()
    ranked, left_out = rank_rivals(sources, {"t": target})
    assert not left_out
    assert [one.name for one in ranked] == list(RIVALS)
    for one in ranked:
        for values in one.values["t"]:
            assert int(np.nanargmax(values)) == 2, one.name


def test_the_flattened_factors_place_only_sources_of_their_own_shape():
    sources, target = make()
    ranked = {one.name: one for one in rank_rivals(sources, {"t": target})[0]}
    last, between = (ranked[name].values["t"][0] for name in ("flattened A and B", "flattened A and B, strangers at 0"))
    assert np.isnan(last).tolist() == [False, False, False, True]
    assert between[3] == 0
    np.testing.assert_array_equal(last[:3], between[:3])
    assert last[2] == pytest.approx(1.0)


def test_what_nobody_has_is_left_out_with_what_it_needs():
    sources, target = make()
    bare = [SourceArrays(logme=source.logme, family="x") for source in sources]
    ranked, left_out = rank_rivals(bare, {"t": replace(target, tuned=(), base=None)})
    assert [one.name for one in ranked] == ["LogME"]
    told = dict(left_out)
    assert "--source-rows" in told["TextEmb"]
    assert "source_rows" in told["data size"]
    assert set(told) == set(RIVALS) - {"LogME"}


def test_costs_are_those_of_what_each_rival_runs():
    sources, target = make()
    cost = {one.name: one.cost for one in rank_rivals(sources, {"t": target})[0]}
    assert (cost["LogME"].passes, cost["LogME"].tunes) == (1, False)
    assert cost["LogME"].seconds == pytest.approx(4 * 2.0, abs=0.2)
    assert cost["ESM-LogME"].before == pytest.approx(1.5)
    assert cost["ESM-LogME"].bytes == 4 * D * (D + 1)
    assert (cost["Delta Activations"].tunes, cost["Delta Activations"].tuning_seconds) == (True, 7.0)
    assert cost["TaskEmb"].bytes == 4 * 9
    assert cost["data size"].before is None


@pytest.mark.parametrize("name", list(RIVALS))
def test_the_order_of_the_sources_changes_no_value(name):
    sources, target = make(seed=3)
    order = [3, 1, 0, 2]
    one = np.array(RIVALS[name].values(sources, "t", target))
    two = np.array(RIVALS[name].values([sources[i] for i in order], "t", target))
    np.testing.assert_allclose(one[:, order], two, rtol=1e-6)
