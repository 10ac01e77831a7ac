"""Model cards: what an author says is cut short, stripped, and never able to hurt."""

from __future__ import annotations

import subprocess
import sys
import time
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hubrank.checkpoints.card import card_facts, front_matter, plain
from hubrank.types import CardFacts, Metric

CARD = """---
license: apache-2.0
language:
- en
- de
tags: [peft, lora]
datasets: [glue]
pipeline_tag: text-classification
model-index:
- name: m
  results:
  - task: {type: text-classification}
    dataset: {name: SST-2, type: glue}
    metrics:
    - {type: accuracy, value: 0.92, name: Accuracy}
    - {type: f1, value: 0.9}
---
# Title
"""


def test_a_card_as_the_hub_s_authors_write_it():
    assert card_facts(front_matter(CARD.encode())) == CardFacts(
        task="SST-2",
        datasets=("glue",),
        license="apache-2.0",
        languages=("en", "de"),
        tags=("peft", "lora"),
        metrics=(Metric("Accuracy", 0.92), Metric("f1", 0.9)),
    )


@pytest.mark.parametrize("change", [("\n", "\r\n"), ("---\nlicense", "\ufeff---\nlicense"), ("---\n#", "--- \n#")])
def test_line_ends_and_a_byte_order_mark_do_not_matter(change):
    assert front_matter(CARD.replace(*change).encode()) == front_matter(CARD.encode()) != {}


@pytest.mark.parametrize(
    "readme",
    [
        b"",
        b"# Title",
        b"---\n",
        b"---\nlicense: mit\n",
        b"\n---\nlicense: mit\n---\n",
        b"--\nlicense: mit\n--\n",
        b"\xff\xfe\0",
    ],
)
def test_without_front_matter_nothing_is_known(readme):
    assert front_matter(readme) == {}
    assert card_facts(front_matter(readme)) == CardFacts()


def test_what_was_read_of_a_card_cannot_be_changed_for_the_next_that_says_the_same():
    front = front_matter(CARD.encode())
    with pytest.raises(TypeError):
        front["license"] = "none"  # type: ignore[index]
    assert front_matter(CARD.encode()) == front


@pytest.mark.parametrize(
    "yaml",
    [
        "just text",
        "- a\n- b",
        "license: [unclosed",
        "a: b: c",
        "\tlicense: mit",
        "license: !!python/object/apply:os.system ['touch canary']",
        "license: !!python/name:os.system",
        "a: !unknown b",
        '!!int "": 1',
        'a: !!int ""',
        'a: !!float ""',
        "a: !!bool maybe",
        "a: !!timestamp never",
        "a: !!binary é",
        "a: 2001-99-99",
        "a: 2001-01-01T00:00:00+99:99",
        "a: " + "9" * 5000,
        "? [a]\n: b",
        "a: *undefined",
        "a: \x07bell",
    ],
)
def test_yaml_that_is_malformed_or_means_harm_is_no_front_matter(yaml, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert front_matter(f"---\n{yaml}\n---\n".encode()) == {}
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("opening", ["[", "{a: ", "- ", "? ", "!!seq ["])
def test_deep_nesting_does_not_overrun_the_stack(opening):
    # In a process of its own: libyaml's composer used to crash on these, and pytest with it.
    code = (
        "from hubrank.checkpoints.card import front_matter\n"
        f"print(dict(front_matter(b'---\\n' + {opening!r}.encode() * {60_000 // len(opening)} + b'\\n---\\n')))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout.strip()) == (0, "{}"), done.stderr[-500:]


def test_nesting_as_cards_have_it_is_read():
    assert front_matter(b"---\na: {b: [{c: [{d: [e]}]}]}\n---\n") == {"a": {"b": [{"c": [{"d": ["e"]}]}]}}


@pytest.mark.parametrize("key", ["<<", "!!merge x"])
def test_aliases_and_merges_that_multiply_end_soon(key):
    started = time.thread_time()
    lists = "l0: &l0 [x]\n" + "".join(f"l{i}: &l{i} [{','.join([f'*l{i - 1}'] * 9)}]\n" for i in range(1, 20))
    facts = card_facts(front_matter(f"---\n{lists}license: mit\ntags: *l19\n---\n".encode()))
    assert (facts.license, facts.tags) == ("mit", ())
    maps = "m0: &m0 {a: 1}\n" + "".join(f"m{i}: &m{i} {{{key}: [{','.join([f'*m{i - 1}'] * 9)}]}}\n" for i in range(1, 12))
    assert front_matter(f"---\n{maps}license: mit\n---\n".encode()) == {}
    assert time.thread_time() - started < 2


def test_a_cyclic_alias_is_harmless():
    assert card_facts(front_matter(b"---\ntags: &t [a, *t]\nlicense: mit\n---\n")) == CardFacts(license="mit", tags=("a",))


@pytest.mark.parametrize("value", [None, 5, 1.5, True, {"a": "b"}, [], [[]], [None, 5, {"a": 1}], [["deep"]]])
def test_facts_of_the_wrong_types_are_left_out(value):
    front = dict.fromkeys(("license", "language", "tags", "datasets", "pipeline_tag", "model-index"), value)
    assert card_facts(front) == CardFacts()


@pytest.mark.parametrize(
    "index",
    [
        {"results": []},
        [None],
        [{"results": {"metrics": []}}],
        [{"results": [{"metrics": "accuracy", "dataset": "sst2"}]}],
        [{"results": [{"metrics": [5, {"type": "f1"}, {"value": 1.0}, {"type": ["f1"], "value": "0.5"}]}]}],
        [{"results": [{"metrics": [{"type": "f1", "value": v}]}]} for v in (True, float("nan"), float("inf"), 10**400)],
    ],
)
def test_a_model_index_of_the_wrong_shape_has_no_metrics(index):
    assert card_facts({"model-index": index}) == CardFacts()


def test_lists_and_texts_are_cut_short():
    many = [f"item{i}" for i in range(1000)]
    facts = card_facts({"tags": many, "datasets": many, "language": many, "license": "x" * 10_000})
    assert (len(facts.tags), len(facts.datasets), len(facts.languages)) == (64, 12, 12)
    assert len(facts.license) == 96
    results = [{"metrics": [{"type": "f1", "value": i} for i in range(100)]}] * 100
    assert len(card_facts({"model-index": [{"results": results}] * 100}).metrics) == 12


@pytest.mark.parametrize(
    ("front", "task"),
    [
        ({"tags": ["x", "adapterhub:sentiment/imdb"], "datasets": ["glue"]}, "sentiment/imdb"),
        ({"datasets": ["glue"], "pipeline_tag": "token-classification"}, "glue"),
        ({"datasets": "imdb"}, "imdb"),
        ({"pipeline_tag": "token-classification"}, "token-classification"),
        ({"pipeline_tag": "Text-Classification"}, None),
        ({"datasets": ["generator"], "pipeline_tag": "text-generation"}, None),
        ({"model-index": [{"results": [{"dataset": {"name": "unknown"}}, {"dataset": {"name": "RTE"}}]}]}, "RTE"),
    ],
)
def test_the_task_is_the_first_that_says_something(front, task):
    assert card_facts(front).task == task


def test_control_and_bidirectional_characters_are_removed():
    hostile = "a\x1b[31mred\x1b[0m\x00\x07\u202egnp.exe\u2066\u200b\u2028new\r\nline\t\x9b\U000e0041\ud800b"
    assert plain(hostile) == "a[31mred[0mgnp.exe new line b"
    assert card_facts({"license": hostile, "tags": ["\u202e", "\x00", " \n "]}) == CardFacts(
        license="a[31mred[0mgnp.exe new line b"
    )


def test_markup_stays_the_text_it_is():
    # What prints a card must escape it; here nothing may be lost or interpreted.
    assert plain("[bold red]x[/] <script>") == "[bold red]x[/] <script>"


@given(st.text(alphabet=st.characters(), max_size=300), st.integers(1, 100))
def test_plain_text_is_one_short_line_without_control_characters(value, limit):
    line = plain(value, limit)
    assert len(line) <= limit
    assert line == " ".join(line.split())
    assert not [c for c in line if unicodedata.category(c)[0] == "C"]
    assert plain(line, limit) == line


@given(st.binary(max_size=200), st.text(alphabet="[]{}&*!?|>-:,#%@`'\"\n \tax0.", max_size=60))
def test_no_card_raises(raw, text):
    for body in (raw, text.encode()):
        assert isinstance(card_facts(front_matter(b"---\ntags: " + body + b"\n---\n")), CardFacts)
