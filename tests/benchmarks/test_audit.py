"""The audit tells right records from wrong ones, and copies from aliases."""

from __future__ import annotations

import pytest
import torch
from benchmarks.audit import audit
from benchmarks.contestants import CAPTURE, CONTESTANTS, NNSIGHTS, ON_NNTAP, Request, plain
from benchmarks.models import Tokens, Unsuited, blocks, gpt2, in_place

RIGHT = (CAPTURE, ON_NNTAP, "hooks with a copy")
ALIASES = (NNSIGHTS, ".output.save()", ".output.cpu().save()", "hooks with .cpu()", "TraceDict")
HERE = {contestant.name: contestant for contestant in CONTESTANTS}


def audit_of(name, subject, request):
    return audit(HERE[name].way(subject, request), request)


@pytest.mark.parametrize("name", RIGHT)
def test_copies_are_right_where_modules_overwrite_each_others_outputs(name):
    found = audit_of(name, in_place(), Request())
    assert (found.right, found.wrong, found.missing) == (13, 0, 0)
    assert found.bytes_moved > 0


@pytest.mark.parametrize("name", ALIASES)
def test_aliases_are_wrong_there_and_move_nothing(name):
    found = audit_of(name, in_place(), Request())
    assert (found.right, found.wrong, found.missing) == (5, 8, 0)
    assert found.bytes_moved == 0
    assert found.bytes_recorded == 13 * 16 * 8 * 4


@pytest.mark.parametrize("name", [*RIGHT, *ALIASES])
def test_every_contestant_is_right_where_nothing_is_overwritten(name):
    found = audit_of(name, blocks(rows=8, width=4, layers=2), Request())
    assert (found.right, found.wrong, found.missing) == (7, 0, 0)


@pytest.mark.parametrize("name", [CAPTURE, ON_NNTAP, NNSIGHTS, "hooks with .cpu()", ".output.cpu().save()"])
def test_a_cast_is_compared_with_the_cast_value_and_is_a_copy(name):
    found = audit_of(name, in_place(), Request(dtype=torch.float16))
    assert (found.right, found.wrong, found.missing) == (13, 0, 0)
    assert found.bytes_moved > 0


def test_inputs_are_audited_too():
    found = audit_of(CAPTURE, in_place(), Request(inputs=True))
    assert (found.right, found.wrong, found.missing) == (26, 0, 0)


def test_every_step_of_a_generation_is_audited():
    shape = {"n_embd": 16, "n_head": 2, "vocab_size": 64, "n_layer": 2}
    subject = gpt2("tiny", Tokens(3), "cpu", **shape).generating(4)
    for name in (CAPTURE, ON_NNTAP, NNSIGHTS):
        found = audit_of(name, subject, Request(modules=subject.layers))
        assert (found.right, found.wrong, found.missing) == (2 * 4, 0, 0)


def test_a_tensor_that_is_handed_on_is_moved_once():
    subject = blocks(rows=8, width=4, layers=1)
    found = audit_of(CAPTURE, subject, Request())
    assert found.bytes_recorded == 4 * 8 * 4 * 4  # the linear layer, its activation, the block, the model
    assert found.bytes_moved == found.bytes_recorded - 8 * 4 * 4


@pytest.mark.parametrize(
    ("spoil", "right", "wrong", "missing"),
    [
        (lambda records: records[1:], 12, 0, 1),
        (lambda records: [*records, records[0]], 13, 1, 0),
        (lambda records: [(at, value + 1) for at, value in records], 0, 13, 0),
    ],
    ids=["one is missing", "one is there twice", "all are wrong"],
)
def test_what_is_missing_or_wrong_is_counted(spoil, right, wrong, missing):
    way = plain.capture(in_place(), Request())
    broken = type(way)(way.run, lambda made: iter(spoil(list(way.records(made)))), way.watch)
    found = audit(broken, Request())
    assert (found.right, found.wrong, found.missing) == (right, wrong, missing)


def test_the_hidden_states_are_the_layers_outputs_but_for_the_last():
    shape = {"n_embd": 16, "n_head": 2, "vocab_size": 64, "n_layer": 3}
    subject = gpt2("tiny", Tokens(5), "cpu", **shape)
    found = audit_of("output_hidden_states=True", subject, Request(modules=subject.layers))
    assert (found.right, found.wrong) == (2, 1)  # the last one is given after the final norm


@pytest.mark.parametrize(
    ("name", "request_", "reason"),
    [
        (".output.save()", Request(dtype=torch.float16), "keeps outputs in their dtype"),
        (".output.cpu().save()", Request(device=None), "nothing is moved or cast"),
        ("TraceDict", Request(inputs=True), "records outputs only"),
        ("hooks with pinned copies", Request(), "for CUDA models"),
        ("output_hidden_states=True", Request(), "gives the outputs of all layers"),
    ],
)
def test_what_does_not_apply_says_why(name, request_, reason):
    with pytest.raises(Unsuited, match=reason):
        HERE[name].way(in_place(), request_)


def test_a_library_that_is_not_installed_is_named_with_how_to_get_it(monkeypatch):
    monkeypatch.setattr("benchmarks.packages.find_spec", lambda name: None)
    with pytest.raises(Unsuited, match="transformer_lens is not installed: pip install transformer-lens"):
        HERE["TransformerLens run_with_cache"].way(in_place(), Request())
