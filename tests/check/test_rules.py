"""Every rule finds what it is for, on real files, and a good adapter passes all of them."""

from __future__ import annotations

import io
import pickle
import shutil
import zipfile

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from hubrank import check
from hubrank.check.policy import Policy
from hubrank.check.rules import RULES
from tests.builders import BASE, MODULES, lora_tensors
from tests.check.builders import NOW, card, good_adapter, make_zoo

COVERED: set[str] = set()


def found_in(folder, cache=None, *, policy=None, **settings):
    """Rule ids to messages of what a check of a folder finds."""
    report = check(
        [folder], cache_dir=cache or folder.parent / "none", now=NOW, policy=policy or Policy(), offline=True, **settings
    )
    found = {finding.rule: finding for judged in report.adapters for finding in judged.findings}
    COVERED.update(found)
    return found


def test_nothing_is_found_in_a_good_adapter(tmp_path):
    cache = make_zoo(tmp_path)
    assert not found_in(good_adapter(tmp_path / "out" / "good", seed=1), cache)


@pytest.fixture
def adapter(tmp_path):
    return good_adapter(tmp_path / "out" / "mine", seed=1)


class Boom:
    def __reduce__(self):
        return (print, ("owned",))


def torch_file(payload: bytes) -> bytes:
    """A zip file as torch.save writes it, around a pickle."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_STORED) as archive:
        archive.writestr("archive/data.pkl", payload)
        archive.writestr("archive/version", "3\n")
    return out.getvalue()


def test_a_weights_file_that_would_run_code(adapter, capsys):
    (adapter / "adapter_model.bin").write_bytes(torch_file(pickle.dumps(Boom(), 2)))
    found = found_in(adapter)
    assert set(found) == {"unsafe-pickle"}
    assert "print" in found["unsafe-pickle"].message
    assert found["unsafe-pickle"].file.endswith("mine/adapter_model.bin")
    assert found["unsafe-pickle"].local
    assert "owned" not in capsys.readouterr().out


def test_a_pickle_that_no_library_loads(adapter):
    (adapter / "training_args.bin").write_bytes(torch_file(pickle.dumps(Boom(), 2)))
    assert set(found_in(adapter)) == {"pickle-beside"}


def test_weights_that_unfold_into_more_than_the_file_holds(adapter, tmp_path):
    import torch

    wide = {f"base_model.model.{MODULES[0]}.lora_A.weight": torch.zeros(1).as_strided((1000, 1000), (0, 0))}
    torch.save(wide, adapter / "adapter_model.bin")
    (adapter / "adapter_model.safetensors").unlink()
    found = found_in(adapter)
    assert {"storage-trick", "pickle-only"} <= set(found)
    assert "unsafe-pickle" not in found


def test_pickled_weights_alone(adapter):
    import torch

    tensors = {name: torch.from_numpy(array) for name, array in load_file(adapter / "adapter_model.safetensors").items()}
    torch.save(tensors, adapter / "adapter_model.bin")
    assert not found_in(adapter)
    (adapter / "adapter_model.safetensors").unlink()
    assert set(found_in(adapter)) == {"pickle-only"}


@pytest.mark.parametrize("name", ["modeling.py", "libx.so", "setup.SH", "x.dll"])
def test_code_beside_the_adapter(adapter, name):
    (adapter / name).write_text("x")
    assert set(found_in(adapter)) == {"code-files"}


@pytest.mark.parametrize(
    "config",
    [{"auto_map": {"AutoModel": "modeling.Mine"}}, {"auto_mapping": {"base_model_class": "X", "parent_library": "evil"}}],
)
def test_a_config_that_would_import_code(tmp_path, config):
    assert set(found_in(good_adapter(tmp_path / "out" / "mine", config=config))) == {"config-code"}


def test_libraries_that_adapters_usually_name_are_accepted(tmp_path):
    usual = {"auto_mapping": {"base_model_class": "BertModel", "parent_library": "transformers.models.bert.modeling_bert"}}
    assert not found_in(good_adapter(tmp_path / "out" / "mine", config=usual))


def test_no_config_and_a_broken_one(adapter):
    (adapter / "adapter_config.json").write_text("{nonsense")
    assert set(found_in(adapter)) == {"config"}
    (adapter / "adapter_config.json").unlink()
    assert set(found_in(adapter)) == {"config"}


def test_no_weights(adapter):
    (adapter / "adapter_model.safetensors").unlink()
    assert set(found_in(adapter)) == {"weights"}


def test_weights_cut_short(adapter):
    weights = adapter / "adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-5])
    assert set(found_in(adapter)) == {"damaged"}


def test_a_method_that_is_not_read_is_said_to_be_unjudged(tmp_path):
    found = found_in(good_adapter(tmp_path / "out" / "mine", config={"peft_type": "SOMETHING_NEW"}))
    assert set(found) == {"unjudged"}
    assert found["unjudged"].level == "note"


def test_a_base_model_on_somebodys_disk(tmp_path):
    folder = good_adapter(tmp_path / "out" / "mine", base="/home/me/models/x", card=card(without=["base_model"]))
    assert {"base-missing", "card-base"} == set(found_in(folder))
    with_card = good_adapter(tmp_path / "out" / "other", base="/home/me/models/x")
    assert set(found_in(with_card)) == {"base-missing"}


def test_a_base_model_without_a_revision(tmp_path):
    found = found_in(good_adapter(tmp_path / "out" / "mine", config={"revision": None}))
    assert set(found) == {"base-revision"}


def with_tensors(folder, change):
    path = folder / "adapter_model.safetensors"
    save_file({name: change(name, array) for name, array in load_file(path).items()}, path)
    return folder


def test_numbers_that_are_none(adapter):
    with_tensors(adapter, lambda name, array: np.full_like(array, np.nan))
    assert set(found_in(adapter)) == {"not-finite"}


def test_an_adapter_that_was_never_trained(adapter):
    with_tensors(adapter, lambda name, array: np.zeros_like(array) if "lora_B" in name else array)
    assert set(found_in(adapter)) == {"all-zero"}


def test_some_modules_that_were_never_trained(adapter):
    with_tensors(adapter, lambda name, array: array * (not ("lora_B" in name and "query" in name)))
    found = found_in(adapter)
    assert set(found) == {"zero-sites"}
    assert "2 of 4" in found["zero-sites"].message


def test_factors_that_do_not_fit_each_other(adapter):
    with_tensors(adapter, lambda name, array: array[:, :1].copy() if "lora_B" in name else array)
    assert set(found_in(adapter)) == {"shapes"}


def test_shapes_that_other_adapters_of_the_base_model_do_not_have(tmp_path):
    cache = make_zoo(tmp_path)
    found = found_in(good_adapter(tmp_path / "out" / "mine", d=24), cache)
    assert set(found) == {"base-shapes"}
    assert "other adapters" in found["base-shapes"].message


def test_shapes_that_the_base_model_itself_does_not_have(tmp_path, monkeypatch):
    from hubrank.check import run
    from hubrank.target.base import BaseModel

    base = tmp_path / "base"
    base.mkdir()
    own = {f"bert.{module}.weight": np.ones((24, 24), np.float32) for module in MODULES}
    save_file(own, base / "model.safetensors")
    monkeypatch.setattr(run, "find_base", lambda name, **_: BaseModel(name, base, "folder"))
    assert set(found_in(good_adapter(tmp_path / "out" / "wrong"))) == {"base-shapes"}
    assert not found_in(good_adapter(tmp_path / "out" / "right", d=24))


def test_the_same_bytes_under_another_name(tmp_path):
    cache = make_zoo(tmp_path)
    mine = good_adapter(tmp_path / "out" / "mine")
    shutil.copy(tmp_path / "hub/zoo/a3/adapter_model.safetensors", mine)
    found = found_in(mine, cache)
    assert set(found) == {"same-bytes"}
    assert found["same-bytes"].message.endswith("those of zoo/a3 in the zoo")


def test_two_of_one_check_with_the_same_bytes(tmp_path):
    for name in ("one", "two"):
        good_adapter(tmp_path / "out" / "org" / name, seed=4)
    report = check([tmp_path / "out"], cache_dir=tmp_path / "none", now=NOW, policy=Policy(), offline=True)
    first, second = report.adapters
    assert not first.findings
    assert [finding.rule for finding in second.findings] == ["same-bytes"]
    (finding,) = second.findings
    assert finding.message.endswith("those of org/one, which comes first in this check and so is taken for the original")
    assert "if this one is the original, name it first" in finding.way_out
    turned = check(
        [tmp_path / "out/org/two", tmp_path / "out/org/one"], policy=Policy(), offline=True, cache_dir=tmp_path / "none"
    )
    assert [bool(one.findings) for one in turned.adapters] == [False, True]


def test_an_adapter_is_no_copy_of_itself(tmp_path):
    cache = make_zoo(tmp_path)
    assert not found_in(tmp_path / "hub" / "zoo" / "a3", cache)
    elsewhere = tmp_path / "elsewhere" / "zoo" / "a3"
    shutil.copytree(tmp_path / "hub" / "zoo" / "a3", elsewhere)
    assert not found_in(elsewhere, cache)


def rewritten(tensors, scale=1.0):
    """(A, B) as (M A, scale B M^-1): the same update, written otherwise."""
    mix = np.random.default_rng(9).standard_normal((2, 2)) + 2 * np.eye(2)
    out = {}
    for name, array in tensors.items():
        out[name] = (mix @ array if "lora_A" in name else scale * array @ np.linalg.inv(mix)).astype(np.float32)
    return out


def test_the_same_function_written_otherwise(tmp_path):
    cache = make_zoo(tmp_path)
    original = load_file(tmp_path / "hub/zoo/a3/adapter_model.safetensors")
    found = found_in(good_adapter(tmp_path / "out" / "mine", tensors=rewritten(original)), cache)
    assert set(found) == {"same-function"}
    assert "zoo/a3" in found["same-function"].message


def test_the_same_function_at_another_strength(tmp_path):
    cache = make_zoo(tmp_path)
    original = load_file(tmp_path / "hub/zoo/a3/adapter_model.safetensors")
    found = found_in(good_adapter(tmp_path / "out" / "mine", tensors=rewritten(original, 2.5)), cache)
    assert set(found) == {"scaled-copy"}
    assert "2.5" in found["scaled-copy"].message


@pytest.mark.parametrize(
    ("field", "rule"),
    [
        ("base_model", "card-base"),
        ("license", "card-license"),
        ("datasets", "card-datasets"),
        ("language", "card-language"),
        ("model-index", "card-metrics"),
    ],
)
def test_what_a_card_does_not_say(tmp_path, field, rule):
    folder = good_adapter(tmp_path / "out" / "mine", card=card(without=[field]))
    found = found_in(folder)
    assert set(found) == {rule}
    assert found[rule].file.endswith("README.md")


@pytest.mark.parametrize("text", [None, "# only text\n"])
def test_no_card_or_one_without_front_matter(tmp_path, text):
    assert set(found_in(good_adapter(tmp_path / "out" / "mine", card=text))) == {"card-missing"}


def test_a_card_that_names_another_base_model(tmp_path):
    folder = good_adapter(tmp_path / "out" / "mine", card=card({"base_model": "org/another"}))
    found = found_in(folder)
    assert set(found) == {"card-base-differs"}
    assert "org/another" in found["card-base-differs"].message
    assert BASE in found["card-base-differs"].message


def test_an_older_name_of_the_base_model_is_the_same(tmp_path):
    folder = good_adapter(
        tmp_path / "out" / "mine", base="bert-base-uncased", card=card({"base_model": "google-bert/bert-base-uncased"})
    )
    assert not found_in(folder)


def test_a_card_that_names_another_method(tmp_path):
    folder = good_adapter(tmp_path / "out" / "mine", card=card({"tags": ["ia3", "peft"]}))
    found = found_in(folder)
    assert set(found) == {"card-method"}
    assert not found_in(good_adapter(tmp_path / "out" / "both", card=card({"tags": ["qlora", "dora"]})))


@pytest.mark.parametrize("kind", ["pissa", "olora", "loftq", "pissa_niter_16"])
def test_initialisations_that_change_the_base_model(tmp_path, kind):
    folder = good_adapter(tmp_path / "out" / "mine", config={"init_lora_weights": kind})
    assert set(found_in(folder)) == {"init-weights"}


def test_what_the_policy_does_not_allow(adapter):
    policy = Policy(licenses=("mit",), bases=("other/*",))
    assert set(found_in(adapter, policy=policy)) == {"license-allowed", "base-allowed"}
    assert not found_in(adapter, policy=Policy(licenses=("Apache-*",), bases=("ORG/*",), orgs=("team",)))


def test_faint_and_overstrong_updates(tmp_path):
    cache = make_zoo(tmp_path)
    faint = {name: array * np.float32(0.1) for name, array in lora_tensors(seed=5).items()}
    strong = {name: array * np.float32(10) for name, array in lora_tensors(seed=5).items()}
    assert set(found_in(good_adapter(tmp_path / "out" / "faint", tensors=faint), cache)) == {"faint"}
    assert set(found_in(good_adapter(tmp_path / "out" / "strong", tensors=strong), cache)) == {"overstrong"}


def test_an_adapter_that_does_not_look_like_its_task(tmp_path):
    """Ten sources of another task are rewritten copies of one direction; the only one of its own task is far from it."""
    common = lora_tensors(seed=7)
    hub = tmp_path / "hub" / "zoo"
    for i in range(10):
        near = {
            name: array + 0.3 * other
            for (name, array), other in zip(common.items(), lora_tensors(seed=20 + i).values(), strict=True)
        }
        other = card({"datasets": ["trec"], "model-index": []})
        good_adapter(hub / f"near{i}", tensors=near, card=other)
    good_adapter(hub / "far", seed=50)
    from hubrank.api import sync

    sync([tmp_path / "hub"], cache_dir=tmp_path / "cache")
    found = found_in(good_adapter(tmp_path / "out" / "mine", tensors=common), tmp_path / "cache")
    assert set(found) == {"task-differs"}
    assert "11. of 11" in found["task-differs"].message


def test_every_rule_about_an_adapter_was_found_somewhere_above():
    """Those about hubs, targets and the policy have their tests beside what raises them."""
    elsewhere = {"hub-security", "hub-caution", "base-unknown", "org-allowed"}
    elsewhere |= {"new-best", "target-score", "ignore-expired", "ignore-unused"}
    assert set(RULES) == COVERED | elsewhere


def test_rules_are_documented_and_named_alike():
    for rule in RULES.values():
        assert rule.id == rule.id.lower().replace("_", "-")
        assert rule.level in ("error", "warning", "note")
        assert not rule.reason.endswith(".")
        assert not rule.way_out.endswith(".")
        assert rule.text.endswith(".")
