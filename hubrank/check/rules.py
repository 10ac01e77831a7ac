"""All rules, in the order in which they are documented and found."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from hubrank.check import completeness, form, honesty, safety, usefulness
from hubrank.check.rule import Rule

__all__ = ["RULES"]

RULES: Mapping[str, Rule] = MappingProxyType(
    {rule.id: rule for rule in (*safety.RULES, *completeness.RULES, *form.RULES, *honesty.RULES, *usefulness.RULES)}
)
"""By id."""
