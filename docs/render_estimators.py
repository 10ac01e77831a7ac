"""Write docs/estimators.md from the docstrings of the estimators: ``python docs/render_estimators.py``."""

from __future__ import annotations

from pathlib import Path

from hubrank.report.estimator_pages import estimators_markdown

if __name__ == "__main__":
    (Path(__file__).parent / "estimators.md").write_text(estimators_markdown(), encoding="utf-8")
