"""A source among the others of its zoo, in sentences and as JSON."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from hubrank.ranking.profile import Profile
from hubrank.report.inert import inert
from hubrank.report.words import layers_words, listed

__all__ = ["near_sentence", "profile_sentences", "profile_value", "strength_sentence"]

_CROWDED = 0.9  # nearer to the rest than this part of the zoo is
_TWIN = 0.95
_SHARE, _TIMES = 0.05, 1.5  # a layer is named from so much more of the squared norm, and so many times what is usual
_NAMED, _NAME = 3, 120


def profile_sentences(profile: Profile, *, brief: bool = False) -> list[str]:
    """What there is to say of a source without a target. Names in it are inert on a terminal.

    Args:
        brief: without what an explanation that follows says, too.
    """
    strength, near = ([], []) if brief else (strength_sentence(profile), near_sentence(profile))
    return [*strength, *_layers(profile), *near, *_sites(profile)]


def strength_sentence(profile: Profile) -> list[str]:
    """How strong it is against the zoo; nothing where there are no others."""
    if profile.weaker is None:
        return []
    of = f"{profile.sampled} other sources" if profile.sampled > 1 else "the one other source"
    if profile.weaker in (0.0, 1.0) and profile.sampled > 1:
        most = "stronger" if profile.weaker else "weaker"
        return [f"Its update is {most} than those of all {of} looked at: a norm of {profile.strength:.3g} at a site."]
    return [f"Its update is stronger than {profile.weaker:.0%} of {of} looked at: a norm of {profile.strength:.3g} at a site."]


def near_sentence(profile: Profile, places: Sequence[int | None] = ()) -> list[str]:
    """Its nearest sources, with their places in a ranking where there is one; and whether it is near to much."""
    if not profile.nearest:
        return []
    named = []
    for i, near in enumerate(profile.nearest):
        facts = [inert(near.source.task, 40)] if near.source.task else []
        facts.append(f"cosine {near.cosine:.2f}")
        if i < len(places) and places[i] is not None:
            facts.append(f"place {places[i]}")
        named.append(f"{inert(near.source.name, _NAME)} ({', '.join(facts)})")
    usual = f"; a source's nearest is usually at {profile.usual_nearest:.2f}" if profile.usual_nearest is not None else ""
    said = [f"Nearest to it in the zoo: {listed(named)}{usual}."]
    if profile.nearest[0].cosine >= _TWIN:
        said.append(f"With {inert(profile.nearest[0].source.name, _NAME)} it is nearly one and the same.")
    if profile.crowd is not None and profile.less_crowded is not None and profile.less_crowded >= _CROWDED:
        said.append(
            f"It is near to much of this zoo: its median cosine with the others is {profile.crowd:.3f}, "
            f"more than {profile.less_crowded:.0%} of sources have."
        )
    return said


def profile_value(profile: Profile) -> dict[str, Any]:
    """The JSON value: the numbers behind the sentences."""
    return {
        "views": list(profile.views),
        "others": profile.others,
        "strength": _rounded(profile.strength),
        "weaker": _rounded(profile.weaker),
        "sampled": profile.sampled,
        "nearest": [
            {
                "source": near.source.repo,
                "subfolder": near.source.subfolder,
                "task": near.source.task,
                "cosine": _rounded(near.cosine),
            }
            for near in profile.nearest
        ],
        "usual_nearest": _rounded(profile.usual_nearest),
        "crowd": _rounded(profile.crowd),
        "less_crowded": _rounded(profile.less_crowded),
        "shares": [
            {"stack": one.stack, "layer": one.layer, "share": _rounded(one.share), "usual": _rounded(one.usual)}
            for one in profile.layers
        ],
        "comparable": profile.comparable,
    }


def _layers(profile: Profile) -> list[str]:
    if profile.weaker is None or len(profile.layers) < 2:
        return []
    more = [one for one in profile.layers if one.share - one.usual >= _SHARE and one.share >= _TIMES * one.usual]
    if not more:
        return []
    most = sorted(more, key=lambda one: one.usual - one.share)[:_NAMED]
    named = [f"{layers_words([(one.stack, one.layer)])} ({one.share:.0%}; usual {one.usual:.0%})" for one in most]
    return [f"More of its squared norm than usual lies in {listed(named)}."]


def _sites(profile: Profile) -> list[str]:
    if not profile.others:
        return ["The zoo has no other source of its base and method that changes a site with it: there is nothing to compare."]
    if profile.comparable < profile.sites:
        why = "the others are of a kind that this method is not compared by, or that fewer than a tenth of the sources have"
        return [f"{profile.comparable} of its {profile.sites} sites are compared: {why}."]
    return []


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 5)
