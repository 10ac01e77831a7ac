"""Explanations in words: each sentence follows from its number, names are inert, and a plain terminal can show them."""

from __future__ import annotations

import io
import json
from dataclasses import replace

import pytest
from rich.console import Console

from hubrank.ranking.explain import Explanation, Gap, LayerLead, ModuleLead, RowsLead, ViewLead
from hubrank.ranking.profile import LayerShare, Near, Profile
from hubrank.report.explain import explanation_markdown, explanation_table, explanation_value, heading, sentences
from hubrank.report.profile import profile_sentences
from hubrank.report.ranking import ranking_json, ranking_markdown, ranking_table
from hubrank.report.search_page import search_page
from hubrank.report.words import layer_words, layers_words, listed, ordinal
from hubrank.types import CardFacts
from tests.report.test_reports import HOSTILE, ranking, scored, source

PROFILE = Profile(
    source=source(),
    views=("compute", "read", "write"),
    others=20,
    strength=2.5,
    weaker=0.75,
    sampled=20,
    nearest=(Near(source("org/near", card=CardFacts(task="snli")), 0.5), Near(source("org/far"), 0.1)),
    usual_nearest=0.3,
    crowd=0.02,
    less_crowded=0.5,
    layers=(LayerShare("encoder", 0, 0.2, 0.5), LayerShare("encoder", 1, 0.8, 0.5)),
    sites=4,
    comparable=4,
)


def layers(*means, stack="encoder"):
    return tuple(LayerLead(stack, i, 2, (mean, mean, mean)) for i, mean in enumerate(means))


def explained(**fields):
    row = fields.pop("row", scored())
    values = {
        "row": row,
        "estimator": "three-views",
        "place": row.rank,
        "of": 21,
        "views": (
            ViewLead("compute", 0.1, 0.02, 3.0, 1),
            ViewLead("read", 0.2, 0.1, 2.0, 2),
            ViewLead("write", 0.3, 0.2, 1.5, 1),
        ),
        "alike": (),
        "layers": layers(0.1, 2.5),
        "modules": (ModuleLead("query", 2, 1.5), ModuleLead("value", 2, 1.4)),
        "shared": 4,
        "tuned": 4,
        "elsewhere": 0,
        "seeds": 1,
        "profile": PROFILE,
        "near_places": (4, None),
        "gap": Gap(scored(2, 1.0, source=source("org/second")), 1.31, (0.9, -0.2, 0.4), ("encoder", 1), 1),
    }
    return Explanation(**{**values, **fields})


def views(*places):
    return tuple(
        ViewLead(view, 0.1, 0.0, 1.0, place) for view, place in zip(("compute", "read", "write"), places, strict=False)
    )


def said(**fields):
    return " ".join(sentences(explained(**fields)))


def rendered(parts, width=100, **options):
    console = Console(file=io.StringIO(), width=width, markup=False, highlight=False, **options)
    for part in parts:
        console.print(part)
    return console.file.getvalue()


def test_a_whole_explanation():
    assert sentences(explained()) == [
        "The views agree: it is 1st by what it computes, 2nd by where it reads and 1st by where it writes, of 21.",
        "It stands out in encoder layer 1 alone: 2.5 deviations over the mean source.",
        (
            "It is ahead of place 2, org/second, by 1.31 of score: most by what it computes (+0.9 deviations), "
            "though behind by where it reads (-0.2); the gap is widest in encoder layer 1."
        ),
        "Its update is stronger than 75% of 20 other sources looked at: a norm of 2.5 at a site.",
        (
            "Nearest to it in the zoo: org/near (snli, cosine 0.50, place 4) and org/far (cosine 0.10); "
            "a source's nearest is usually at 0.30."
        ),
    ]
    assert heading(explained()) == "1. org/name, lora"


@pytest.mark.parametrize(
    ("places", "start"),
    [((1, 2, 3), "The views agree"), ((1, 5, 3), "It is 1st by what it computes, 5th"), ((1, 15, 3), "The views disagree")],
)
def test_whether_the_views_agree_is_a_matter_of_the_places(places, start):
    assert sentences(explained(views=views(*places)))[0].startswith(start)


def test_a_single_view_neither_agrees_nor_disagrees():
    text = said(views=views(3), gap=None, layers=(LayerLead("encoder", 0, 2, (1.2,)), LayerLead("encoder", 1, 2, (0.0,))))
    assert text.startswith("It is 3rd of 21 by what it computes. It stands out in encoder layer 0 alone")
    assert "agree" not in text


def test_a_view_in_which_all_are_alike_is_named_as_such():
    assert "By where it reads all 21 sources are alike, so that tells nothing here." in said(alike=("read",))
    assert "alike" not in said()


def test_layers():
    assert "in all 3 layers, most in encoder layer 2: 3.0 deviations over" in said(layers=layers(1.5, 1.1, 3.0))
    assert "in encoder layers 0 and 2 to 3, most in" in said(layers=layers(1.5, 0.1, 3.0, 1.0))
    assert "In no layer does it stand out over its views together: at most 0.9 deviations over" in said(layers=layers(0.9, 0.1))
    assert "at most 0.1 deviations under the mean source, in encoder layer 1" in said(layers=layers(-0.9, -0.1))
    assert "In encoder layer 0 it is further from the target than most." in said(layers=layers(-1.5, 2.0))
    assert "further" not in said()


def test_a_source_with_a_single_layer():
    alone = (LayerLead("encoder", 0, 0, (None, None, None)), LayerLead("encoder", 1, 2, (-0.5, -0.5, -0.5)))
    text = said(layers=alone, shared=2)
    assert "All that is compared lies in encoder layer 1: 0.5 deviations under the mean source." in text
    assert "It shares 2 of the 4 sites that the target was tuned at; encoder layer 0 is not among them." in text


def test_modules_are_named_where_one_is_well_ahead():
    assert "modules" not in said()
    ahead = (ModuleLead("query", 2, 2.5), ModuleLead("value", 2, -0.02))
    assert "Of its modules query speaks most for it (+2.5 deviations), value least (0.0)." in said(modules=ahead)


def test_sites_that_are_not_compared():
    assert "It also changes 3 sites that the target was not tuned at" in said(elsewhere=3)
    assert "It also changes 1 site that" in said(elsewhere=1)
    assert "not compared" not in said()


def test_seeds():
    assert "seeds" not in said()
    gap = replace(explained().gap, ahead=2)
    text = said(row=replace(scored(), interval=(1, 6)), seeds=3, gap=gap)
    assert "The 3 seeds disagree: it comes 1st under the kindest, 6th under another." in text
    assert "under 2 of 3 seeds it comes before it." in text
    assert "Under each of 3 seeds it comes 1st." in said(row=replace(scored(), interval=(1, 1)), seeds=3)


def test_behind_the_first():
    gap = Gap(scored(1, 9.0, source=source("org/first")), -2.0, (-0.5, 0.3, -1.0), ("encoder", 0), 0)
    text = said(row=scored(4), gap=gap)
    assert (
        "It is behind place 1, org/first, by 2.00 of score: most by where it writes (-1.0 deviations), though ahead by" in text
    )
    assert "where it reads (+0.3); the gap is widest in encoder layer 0." in text


def test_a_gap_across_methods_or_without_scores():
    other = scored(1, None, source=source("org/first", method="bottleneck"))
    assert "It is behind place 1, org/first, in order." in said(row=scored(2), gap=Gap(other, None, (), None, 0))
    assert "Among the 21 lora sources it is 1st." in said(row=scored(2), place=1)


def test_what_the_rows_say():
    assert "rows" not in said()
    told = said(rows=RowsLead(-0.4, 1.84, 3))
    assert (
        "By how well what it makes of the rows explains their labels it is 3rd of 21, 1.8 deviations over the mean source."
        in told
    )
    assert "1.8 deviations under the mean source" in said(rows=RowsLead(-0.4, -1.84, 20))
    value = explanation_value(explained(rows=RowsLead(-0.4, 1.84, 3)))
    assert value["rows"] == {"evidence": -0.4, "deviations": 1.84, "place": 3}
    assert explanation_value(explained())["rows"] is None


def test_the_rows_may_be_what_separates_two():
    other = scored(2, 1.0, source=source("org/second"))
    ahead = said(gap=Gap(other, 1.31, (0.9, -0.2, 0.4), None, 1, rows=0.5, weight=2.3))
    assert "most by what it makes of the rows (+0.5 deviations)" in ahead
    little = said(gap=Gap(other, 1.31, (0.9, -0.2, 0.4), None, 1, rows=0.5, weight=0.5))
    assert "most by what it computes (+0.9 deviations)" in little
    behind = said(gap=Gap(other, 1.31, (0.9, -0.2, 0.4), None, 1, rows=-0.5))
    assert "most by what it computes (+0.9 deviations)" in behind
    assert "behind by where it reads (-0.2) and what it makes of the rows (-0.5)" in behind
    value = explanation_value(explained(gap=Gap(other, 1.31, (0.9, -0.2, 0.4), None, 1, rows=0.5)))
    assert value["gap"]["rows"] == 0.5


def test_what_is_usual_is_not_said():
    assert "nearly one and the same" not in said()
    assert "near to much" not in said()
    twin = replace(PROFILE, nearest=(Near(source("org/twin"), 0.99),))
    assert "With org/twin it is nearly one and the same." in said(profile=twin)
    crowded = replace(PROFILE, less_crowded=0.95)
    assert "its median cosine with the others is 0.020, more than 95% of sources have." in said(profile=crowded)
    alone = replace(PROFILE, weaker=None, nearest=(), crowd=None, less_crowded=None)
    assert sentences(explained(profile=alone, gap=None)) == sentences(explained())[:2]


def test_strength_at_the_ends():
    assert "weaker than those of all 20 other sources" in said(profile=replace(PROFILE, weaker=0.0))
    assert "stronger than those of all 20 other sources" in said(profile=replace(PROFILE, weaker=1.0))


def test_a_profile_names_the_layers_that_hold_more_than_usual():
    whole = profile_sentences(PROFILE)
    assert whole[1] == "More of its squared norm than usual lies in encoder layer 1 (80%; usual 50%)."
    even = replace(PROFILE, layers=(LayerShare("encoder", 0, 0.48, 0.5), LayerShare("encoder", 1, 0.52, 0.5)))
    assert len(profile_sentences(even)) == len(whole) - 1
    assert profile_sentences(PROFILE, brief=True) == [whole[1]]
    lost = replace(PROFILE, others=0, weaker=None, nearest=())
    assert profile_sentences(lost)[-1].endswith("there is nothing to compare.")
    assert "3 of its 4 sites are compared" in profile_sentences(replace(PROFILE, comparable=3))[-1]


def test_hostile_names_are_inert_in_every_format():
    bad = source(HOSTILE, card=CardFacts(task=HOSTILE), variant=HOSTILE, method="lora")
    profile = replace(PROFILE, source=bad, nearest=(Near(bad, 0.99),))
    gap = Gap(scored(2, source=bad), 1.0, (1.0, 1.0, 1.0), (HOSTILE, 1), 1)
    hostile = (ModuleLead(HOSTILE, 2, 3.0), ModuleLead("value", 2, 0.0))
    one = explained(
        row=scored(source=bad), profile=profile, gap=gap, modules=hostile, layers=layers(2.0, -2.0, stack=HOSTILE), shared=3
    )
    whole = ranking(scored(source=bad), explanations=(one,))
    assert ranking_json(whole).isascii()
    markdown, table = ranking_markdown(whole), rendered(ranking_table(whole), width=60, force_terminal=True, color_system=None)
    page = search_page(whole, None, command="hubrank", versions=())
    for text in (markdown, table, page):
        assert "\x1b[31m" not in text
        assert "\u202e" not in text
        assert not any(line.strip().startswith("::") for line in text.splitlines())
    for text in (markdown, page):
        assert "<script>" not in text
    assert explanation_markdown(one).count("\n- ") == len(sentences(one))
    assert "::" not in " ".join(sentences(one))


def test_every_format_has_the_explanation_where_there_is_one():
    whole = ranking(scored(), scored(2), explanations=(explained(),))
    (value,) = json.loads(ranking_json(whole))["explanations"]
    assert value["sentences"] == sentences(explained())
    assert (value["rank"], value["source"], value["place"], value["of"]) == (1, "org/name", 1, 21)
    assert value["views"][0] == {"view": "compute", "cosine": 0.1, "usual": 0.02, "deviations": 3.0, "place": 1}
    assert value["layers"][1] == {"stack": "encoder", "layer": 1, "sites": 2, "deviations": [2.5, 2.5, 2.5]}
    assert value["gap"] == {
        "rank": 2, "source": "org/second", "subfolder": None, "score": 1.31, "views": [0.9, -0.2, 0.4],
        "layer": {"stack": "encoder", "layer": 1}, "seeds_ahead": 1, "rows": None,
    }  # fmt: skip
    assert value["profile"]["nearest"][0] == {"source": "org/near", "subfolder": None, "task": "snli", "cosine": 0.5}
    assert value["profile"]["shares"][1]["share"] == 0.8
    assert "The views agree" in ranking_markdown(whole)
    assert "The views agree" in search_page(whole, None, command="hubrank", versions=())
    assert "The views agree" in rendered(ranking_table(whole))
    assert json.loads(ranking_json(ranking(scored())))["explanations"] == []
    assert "Why they stand" not in search_page(ranking(scored()), None, command="hubrank", versions=())


def test_a_terminal_without_unicode_or_colour():
    long = source("o/" + "n" * 300)
    parts = explanation_table(explained(row=scored(source=long)), unicode=False)
    text = rendered(parts)
    assert text.isascii()
    (row,) = [line.split() for line in text.splitlines() if line.strip().startswith("encoder 1")]
    assert row == ["encoder", "1", "+2.5", "+2.5", "+2.5", "#" * 10]
    plain = rendered(explanation_table(explained()), force_terminal=True, no_color=True)
    assert "\x1b[3" not in plain
    assert "█" in plain


def test_the_plot_of_a_deep_model_is_small():
    deep = layers(*(i / 10 for i in range(40)))
    text = rendered(explanation_table(explained(layers=deep)))
    bands = [line for line in text.splitlines() if line.strip().startswith("encoder ") and " to " in line]
    assert len(bands) == 13  # of three layers each, and the last by itself
    assert bands[0].split()[:4] == ["encoder", "0", "to", "2"]
    assert bands[0].split()[4] == "+0.1"
    stacks = layers(1.0, 2.0) + layers(0.5, stack="decoder")
    labels = [line.split()[:2] for line in rendered(explanation_table(explained(layers=stacks))).splitlines()]
    assert [label for label in labels if label[:1] in (["encoder"], ["decoder"])] == [
        ["encoder", "0"], ["encoder", "1"], ["decoder", "0"],
    ]  # fmt: skip


def test_without_a_view_there_is_no_plot():
    bare = explained(
        views=(), alike=("compute", "read", "write"), layers=(LayerLead("encoder", 0, 2, ()),), modules=(), gap=None
    )
    assert "By what it computes, where it reads and where it writes all 21 sources are alike" in " ".join(sentences(bare))
    assert "mean source" not in rendered(explanation_table(bare))
    assert json.dumps(explanation_value(bare), allow_nan=False)


def test_words():
    assert [ordinal(n) for n in (1, 2, 3, 4, 11, 12, 13, 21, 102, 111)] == [
        "1st", "2nd", "3rd", "4th", "11th", "12th", "13th", "21st", "102nd", "111th",
    ]  # fmt: skip
    assert [listed(["a"]), listed(["a", "b"]), listed(["a", "b", "c"])] == ["a", "a and b", "a, b and c"]
    assert layers_words([("", 3), ("", 1), ("", 2), ("", 7)]) == "layers 1 to 3 and 7"
    assert layers_words([("encoder", 0), ("decoder", 4), ("encoder", -1)]) == (
        "encoder outside the layers, encoder layer 0 and decoder layer 4"
    )
    assert (layer_words("", -1), layer_words("decoder", 2, word=True)) == ("outside the layers", "decoder layer 2")
