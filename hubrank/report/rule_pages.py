"""docs/rules.md, from the rules themselves."""

from __future__ import annotations

from itertools import groupby

from hubrank.check.rules import RULES

__all__ = ["rules_markdown"]

_GROUPS = {
    "safe": "Safe to load",
    "complete": "Complete",
    "well-formed": "Well-formed",
    "honest": "Honest",
    "useful": "Useful",
    "policy": "The policy itself",
}
_HEAD = """# The rules of `hubrank check`

Written from the code by `python docs/render_rules.py`; a test fails where the two differ.

Each rule has an id, a level (`error`, `warning`, `note` or `off`), a reason and a way out. A [policy](ci.md#policy) changes
levels, and says from which level on the check fails: `error`, where it says nothing.
"""


def rules_markdown() -> str:
    """A table of all rules, then each with its reason, its way out, and what is looked at."""
    lines = [_HEAD, "| rule | level | why |", "|---|---|---|"]
    lines += [f"| [`{rule.id}`](#{rule.id}) | {rule.level} | {rule.reason} |" for rule in RULES.values()]
    ordered = sorted(RULES.values(), key=lambda rule: list(_GROUPS).index(rule.group))
    for group, rules in groupby(ordered, key=lambda rule: rule.group):
        lines += ["", f"## {_GROUPS[group]}"]
        for rule in rules:
            lines += ["", f"### {rule.id}", "", f"*{rule.level}*: {rule.reason}.", "", rule.text, ""]
            lines += [f"Way out: {rule.way_out}."]
    return "\n".join(lines) + "\n"
