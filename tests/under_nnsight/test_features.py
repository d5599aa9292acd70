"""Every feature of `tracer.cache()`, on every nnsight."""

from __future__ import annotations

import copy
import gc
import io
import pickle
import threading
from typing import Any

import nnsight
import pytest
import torch
from transformers import LogitsProcessor, LogitsProcessorList

import models
import nntap
from helpers import assert_script_runs, clones_of_outputs
from models import PROMPT

X = torch.arange(12.0).view(3, 4) - 5


def truth(model: Any, x: torch.Tensor) -> dict[str, torch.Tensor]:
    """What each module of the in-place model gives back, as clones."""
    with torch.no_grad(), clones_of_outputs(model._module) as found:
        model._module(x)
    return {f"model.{path}".rstrip("."): tensor_of(output) for path, (output,) in found.items()}


def outputs(cache: Any) -> dict[str, torch.Tensor]:
    return {path: tensor_of(entry.output) for path, entry in cache.items()}


def tensor_of(output: Any) -> torch.Tensor:
    return output[0] if isinstance(output, tuple) else output


def assert_same(read: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> None:
    assert read.keys() == expected.keys()
    for path, value in expected.items():
        assert torch.equal(read[path], value), path


# ---- snapshots ----


@pytest.mark.parametrize("device", ["cpu", torch.device("cpu"), None])
def test_a_record_is_what_the_module_gave_back(in_place: Any, device: Any) -> None:
    model = in_place
    with model.trace(X) as tracer:
        cache = tracer.cache(device=device)
    expected = truth(model, X)
    assert_same(outputs(cache), expected)
    assert list(cache.keys()) == list(expected)
    assert isinstance(cache, nntap.Cache)


def test_editing_the_model_s_tensors_afterwards_changes_nothing(in_place: Any) -> None:
    model = in_place
    with model.trace(X) as tracer:
        cache = tracer.cache(modules=["model.head", "model.blocks.0.up"])
        head = model.head.output.save()
    expected = cache.head.output.clone()
    with torch.no_grad():
        head.zero_()
        head.data.fill_(3)
    assert torch.equal(cache.head.output, expected)


# ---- interventions ----


def test_records_are_made_after_interventions(in_place: Any) -> None:
    model = in_place
    with model.trace(X) as tracer:
        cache = tracer.cache()
        model.blocks[1].output[:] = 2
        model.blocks[2].up.output = torch.ones(3, 4)
    assert (cache.blocks[1].output == 2).all()
    assert (cache.blocks[2].up.output == 1).all()
    assert torch.equal(cache.blocks[3].up.output, model._module.blocks[3].up(cache.blocks[2].output))


def test_inputs_are_recorded_after_interventions(in_place: Any) -> None:
    model = in_place
    with model.trace(X) as tracer:
        cache = tracer.cache(modules=model.blocks[1], include_inputs=True)
        model.blocks[1].input = torch.full((3, 4), 7.0)
    entry = cache.blocks[1]
    assert (entry.input == 7).all()
    assert entry.inputs[1] == {"scale": 0.5}
    assert torch.equal(entry.output, model._module.blocks[1](torch.full((3, 4), 7.0), scale=0.5))


def test_a_skipped_module_is_recorded_with_its_replacement(in_place: Any) -> None:
    model = in_place
    with model.trace(X) as tracer:
        cache = tracer.cache()
        model.blocks[1].skip(torch.full((3, 4), 3.0))
    assert (cache.blocks[1].output == 3).all()
    assert "model.blocks.1.up" not in cache
    assert "model.blocks.2.up" in cache


def test_an_early_stop_keeps_what_came_before(in_place: Any) -> None:
    model = in_place
    with model.trace(X) as tracer:
        cache = tracer.cache()
        model.blocks[1].output.save()
        tracer.stop()
    assert "model.blocks.1.up" in cache
    assert "model.blocks.2.up" not in cache
    assert torch.equal(cache.blocks[0].up.output, truth(model, X)["model.blocks.0.up"])


# ---- invokes, several caches, sessions ----


def test_a_cache_in_an_invoke_has_its_own_rows(gpt2: Any) -> None:
    model = gpt2
    with model.trace() as tracer:
        with tracer.invoke(PROMPT):
            first = tracer.cache(modules=[model.transformer.h[0].mlp, model.lm_head])
        with tracer.invoke([PROMPT, "The city of New York is in the city of New York"]):
            second = tracer.cache(modules=model.lm_head)
    length = second.lm_head.output.shape[1]
    assert first.lm_head.output.shape == (1, length, 64)
    assert second.lm_head.output.shape == (2, length, 64)
    assert torch.allclose(first.lm_head.output[0], second.lm_head.output[0], atol=1e-5)
    assert first.keys() == ["model.transformer.h.0.mlp", "model.lm_head"]
    # Its own rows, in its own memory.
    assert first.lm_head.output.untyped_storage().nbytes() == first.lm_head.output.nbytes


def test_invokes_with_interventions_of_their_own(gpt2: Any) -> None:
    model = gpt2
    with model.trace() as tracer:
        with tracer.invoke(PROMPT):
            first = tracer.cache(modules="transformer.h.1.mlp")
            model.transformer.h[1].mlp.output[:] = 9
        with tracer.invoke(PROMPT):
            second = tracer.cache(modules="transformer.h.1.mlp")
    with model.trace(PROMPT) as tracer:
        alone = tracer.cache(modules="transformer.h.1.mlp")
    assert (first.transformer.h[1].mlp.output == 9).all()
    assert torch.allclose(second.transformer.h[1].mlp.output, alone.transformer.h[1].mlp.output, atol=1e-6)


def test_several_caches_are_apart(in_place: Any) -> None:
    model = in_place
    with model.trace(X) as tracer:
        full = tracer.cache(modules="blocks.*")
        half = tracer.cache(modules=["blocks.0", model.head], dtype="float16")
        inputs = tracer.cache(modules="head", include_inputs=True, include_output=False)
    assert full.keys() == [f"model.blocks.{i}" for i in range(4)]
    assert half.keys() == ["model.blocks.0", "model.head"]
    assert torch.equal(half.blocks[0].output, full.blocks[0].output.half())
    assert torch.equal(inputs.head.input, full.blocks[3].output)


def test_a_session_of_traces(in_place: Any) -> None:
    model = in_place
    with model.session():
        with model.trace(X) as tracer:
            first = tracer.cache(modules="head").save()
        with model.trace(X + 1) as tracer:
            second = tracer.cache(modules="head").save()
    assert torch.equal(first.head.output, truth(model, X)["model.head"])
    assert torch.equal(second.head.output, truth(model, X + 1)["model.head"])


EDITS_ARE_TRACES = pytest.mark.skipif(
    not nnsight.__version__.startswith("0.8."), reason="an edit of nnsight before 0.8 has no tracer"
)


@EDITS_ARE_TRACES
def test_a_cache_in_an_edit_records_every_later_trace(in_place: Any) -> None:
    model = in_place
    made: list[nntap.Cache] = []
    with model.edit(inplace=True) as tracer:
        made.append(tracer.cache(modules=[model.head]))
        model.head.output[:] = 7
    for x in (X, X + 1):
        with model.trace(x) as tracer:
            cache = tracer.cache(modules="**")
        assert (cache["model.head"].output == 7).all()
    assert [list(each.keys()) for each in made] == [["model.head"]] * 2
    assert all((each["model.head"].output == 7).all() for each in made)


@EDITS_ARE_TRACES
def test_an_edited_copy_and_its_original_are_one_model(in_place: Any) -> None:
    model = in_place
    with model.edit() as (_, edited):
        edited.head.output[:] = 7
    with edited.trace(X) as tracer:
        of_the_original = tracer.cache(modules=[model, model.head])
    with model.trace(X) as tracer:
        of_the_copy = tracer.cache(modules=[edited, edited.head])
    assert (of_the_original["model.head"].output == 7).all()
    assert_same(outputs(of_the_copy), {path: truth(model, X)[path] for path in ("model.head", "model")})


def test_scan_records_shapes(gpt2: Any) -> None:
    model = gpt2
    with model.scan(PROMPT) as tracer:
        cache = tracer.cache(modules=model.lm_head)
    assert cache.lm_head.output.shape == (1, 10, 64)


# ---- generation ----


def test_generation_gives_an_entry_a_step(gpt2: Any) -> None:
    model = gpt2
    with model.generate("The city of", max_new_tokens=3) as tracer:
        cache = tracer.cache(modules=[model.transformer.h[0].mlp, model.lm_head], include_inputs=True)
    steps = cache["model.lm_head"]
    assert [step.output.shape[1] for step in steps] == [step.input.shape[1] for step in steps]
    assert [step.output.shape[1] for step in cache["model.transformer.h.0.mlp"]] == [3, 1, 1]


def test_an_intervention_in_one_step_of_a_generation(gpt2: Any) -> None:
    model = gpt2
    with model.generate("The city of", max_new_tokens=3) as tracer:
        cache = tracer.cache(modules=model.transformer.h[0].mlp)
        for _ in tracer.iter[1:2]:
            model.transformer.h[0].mlp.output[:] = 5
    assert [bool((step.output == 5).all()) for step in cache["model.transformer.h.0.mlp"]] == [False, True, False]


# ---- options ----


@pytest.mark.parametrize("dtype", [torch.float16, "bfloat16", torch.float64])
def test_dtype(in_place: Any, dtype: Any) -> None:
    model = in_place
    with model.trace(X) as tracer:
        cache = tracer.cache(dtype=dtype, non_blocking=True)
    kind = getattr(torch, dtype) if isinstance(dtype, str) else dtype
    assert_same(outputs(cache), {path: value.to(kind) for path, value in truth(model, X).items()})


def test_detach_false_keeps_the_graph() -> None:
    model = models.gpt2_language_model(layers=2)
    with model.trace(PROMPT) as tracer:
        cache = tracer.cache(modules=model.lm_head, detach=False)
        kept = tracer.cache(modules=model.lm_head)
    total = cache.lm_head.output.sum()
    torch.autograd.backward(total)  # nnsight takes `total.backward()` for a trace
    assert model._module.transformer.wte.weight.grad is not None
    assert not kept.lm_head.output.requires_grad
    assert cache.stats.slow == {"detach=False": 1}


def test_aliases_work_as_on_the_model(in_place: Any) -> None:
    model = models.in_place(rename={"blocks": "layers"})
    with model.trace(X) as tracer:
        cache = tracer.cache(modules="layers.*")
        whole = tracer.cache(modules=[model.layers[1]])
    assert cache.keys() == [f"model.blocks.{i}" for i in range(4)]
    assert cache.layers[1].output is cache["model.layers.1"].output is cache.blocks[1].output
    assert torch.equal(whole.layers[1].output, cache.layers[1].output)


def test_a_glob_may_go_through_several_aliases() -> None:
    model = models.in_place(rename={"blocks": "layers", "up": "rise"})
    with model.trace(X) as tracer:
        cache = tracer.cache(modules="layers.*.rise")
        mixed = tracer.cache(modules="model.blocks.*.rise")
    assert cache.keys() == mixed.keys() == [f"model.blocks.{i}.up" for i in range(4)]


# ---- reading elsewhere ----


def test_copies_and_pickles(in_place: Any) -> None:
    model = in_place
    with model.trace(X) as tracer:
        cache = tracer.cache(include_inputs=True)
    buffer = io.BytesIO()
    torch.save(cache, buffer)
    buffer.seek(0)
    for other in (
        pickle.loads(pickle.dumps(cache)),
        copy.deepcopy(cache),
        torch.load(buffer, weights_only=False),
    ):
        assert_same(outputs(other), outputs(cache))
        assert other.blocks[2].inputs[1] == {"scale": 0.5}


def test_a_pickle_is_read_in_a_process_without_nnsight(in_place: Any, tmp_path: Any) -> None:
    model = in_place
    with model.trace(X) as tracer:
        cache = tracer.cache()
    file = tmp_path / "cache.pickle"
    file.write_bytes(pickle.dumps(cache))
    script = """
        import pathlib, pickle, sys
        cache = pickle.loads(pathlib.Path(sys.argv[1]).read_bytes())
        print(len(cache), tuple(cache.blocks[0].up.output.shape), "nnsight" in sys.modules)
    """
    assert_script_runs(script, str(file), says=f"{len(cache)} (3, 4) False")


# ---- what goes wrong ----


def test_an_error_in_the_middle_keeps_what_came_before_and_leaves_nothing(in_place: Any) -> None:
    model = in_place
    kept: list[Any] = []

    def fail(*_: Any) -> None:
        raise ZeroDivisionError("in the model")

    def run() -> None:
        with model.trace(X) as tracer:
            cache = tracer.cache()
            kept.append(cache)

    handle = model._module.blocks[3].up.register_forward_pre_hook(fail)
    with pytest.raises(ZeroDivisionError, match="in the model"):
        run()
    handle.remove()
    (cache,) = kept
    assert torch.equal(cache.blocks[0].up.output, truth(model, X)["model.blocks.0.up"])
    assert "model.head" not in cache
    with model.trace(X) as tracer:
        clean = tracer.cache()
    assert_same(outputs(clean), truth(model, X))


def test_a_call_after_the_trace_is_not_recorded(in_place: Any) -> None:
    model = in_place
    with model.trace(X) as tracer:
        cache = tracer.cache(include_inputs=True)
    model._module(X)
    with model.trace(X):
        model.head.output.save()
    assert {len(entry) for entry in cache.values()} == {1}


def test_memory_comes_back_when_caches_die(in_place: Any) -> None:
    model = in_place

    def run() -> int:
        with model.trace(X) as tracer:
            cache = tracer.cache()
        assert len(cache) > 0
        return nntap.pool_stats()["used_bytes"]

    gc.collect()  # nnsight's own frames make cycles
    before = nntap.pool_stats()["used_bytes"]
    assert run() > before
    gc.collect()
    assert nntap.pool_stats()["used_bytes"] == before


@pytest.mark.skipif(nnsight.__version__.startswith("0.7."), reason="nnsight 0.7 itself loses values between threads")
def test_threads_trace_models_of_their_own() -> None:
    results: dict[int, bool] = {}

    def work(number: int) -> None:
        model = models.in_place()
        right = True
        for step in range(10):
            x = X + number + step
            with model.trace(x) as tracer:
                cache = tracer.cache()
            expected = truth(model, x)
            right = right and all(torch.equal(value, expected[path]) for path, value in outputs(cache).items())
        results[number] = right

    threads = [threading.Thread(target=work, args=(number,)) for number in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == dict.fromkeys(range(3), True)


def test_calls_that_nnsight_keeps_out_of_a_run_are_not_recorded(gpt2: Any) -> None:
    """A logit lens through the envoys, in the middle of a generation: such a call is no part of the run."""
    model = gpt2
    hidden: list[Any] = []
    handle = model.transformer.h[0]._module.register_forward_hook(lambda _module, _args, output: hidden.append(output))

    class EarlyExit(LogitsProcessor):
        def __call__(self, _ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
            last = hidden[-1][0] if isinstance(hidden[-1], tuple) else hidden[-1]
            return scores + model.lm_head(model.transformer.ln_f(last))[:, -1]

    def records() -> int:
        processors = LogitsProcessorList([EarlyExit()])
        with model.generate("The Tower", max_new_tokens=3, logits_processor=processors) as tracer:
            cache = tracer.cache(modules=[model.lm_head])
        return len(cache["model.lm_head"])

    nntap.uninstall()
    expected = records()  # 3 from 0.8 on; before, these calls were a part of the run
    nntap.install()
    assert records() == expected
    handle.remove()
