"""Write docs/rules.md from the rules in the code: ``python docs/render_rules.py``."""

from __future__ import annotations

from pathlib import Path

from hubrank.report.rule_pages import rules_markdown

if __name__ == "__main__":
    (Path(__file__).parent / "rules.md").write_text(rules_markdown(), encoding="utf-8")
