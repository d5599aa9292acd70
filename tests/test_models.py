"""Models of many kinds, without nnsight: each record is what a hook's clone of the same run says."""

from __future__ import annotations

import inspect
import itertools
from collections.abc import Callable
from typing import Any

import pytest
import torch
import transformers
from sentence_transformers import SentenceTransformer
from torch import nn
from transformers import AutoModel, AutoTokenizer, PreTrainedModel

import nntap
from helpers import assert_records_are, clones_of_outputs, hooks_of
from nntap.demo.extras import weights_folder
from nntap.demo.texts import bundled
from nntap.exchange import version_of

WEIGHTS = weights_folder()


def recorded(model: nn.Module, run: Callable[[], Any], **options: Any) -> tuple[nntap.Cache, dict[str, list[Any]]]:
    """The cache of a run, compared with the clones of the same run."""
    with torch.no_grad(), clones_of_outputs(model) as clones, nntap.capture(model, **options) as cache:
        run()
    assert_records_are(cache, clones)
    return cache, clones


# ---- real weights on real text ----


@pytest.fixture(scope="module")
def sentences() -> list[str]:
    return list(bundled("sentences.txt").sentences)


def test_minilm_on_real_sentences(sentences: list[str]) -> None:
    tokenizer = AutoTokenizer.from_pretrained(WEIGHTS, local_files_only=True)
    model = AutoModel.from_pretrained(WEIGHTS, local_files_only=True).eval()
    batch = tokenizer(sentences, padding=True, return_tensors="pt")
    cache, _ = recorded(model, lambda: model(**batch), include_inputs=True)
    layers = [f"encoder.layer.{i}" for i in range(6)]
    for layer, following in itertools.pairwise(layers):
        states = cache[layer].output
        assert torch.equal(cache[following].input, states[0] if isinstance(states, tuple) else states)
    assert cache[""].output.last_hidden_state.shape == (*batch["input_ids"].shape, 384)
    assert cache.stats.slow == {}


def test_minilm_through_the_encode_of_sentence_transformers(sentences: list[str]) -> None:
    model = SentenceTransformer(str(WEIGHTS), local_files_only=True, device="cpu")
    texts = sentences * 2
    expected = model.encode(texts, batch_size=8, convert_to_tensor=True)
    with clones_of_outputs(model) as clones, nntap.capture(model) as cache:
        got = model.encode(texts, batch_size=8, convert_to_tensor=True)
    assert_records_are(cache, clones)
    assert torch.equal(got, expected)
    steps = len(cache["0"])
    assert steps == -(-len(texts) // 8)
    pooled = nn.functional.normalize(torch.cat([step.output["sentence_embedding"] for step in cache["1"]]))
    assert (expected @ pooled.T).max(1).values.min() > 1 - 1e-5  # in the order of the texts' lengths


# ---- transformers, from configs ----

NARROW = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
TOKENS = {"vocab_size": 50, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
IDS = torch.arange(12).view(2, 6) + 3

CAUSAL: dict[str, Callable[[], PreTrainedModel]] = {
    "gpt2": lambda: transformers.GPT2LMHeadModel(
        transformers.GPT2Config(n_embd=32, n_layer=2, n_head=4, n_positions=32, **TOKENS)
    ),
    "llama": lambda: transformers.LlamaForCausalLM(transformers.LlamaConfig(**NARROW, **TOKENS)),
    "mixtral": lambda: transformers.MixtralForCausalLM(
        transformers.MixtralConfig(
            **NARROW, **TOKENS, num_key_value_heads=2, num_local_experts=4, num_experts_per_tok=2
        )
    ),
}


@pytest.fixture(params=sorted(CAUSAL))
def causal(request: pytest.FixtureRequest) -> PreTrainedModel:
    torch.manual_seed(0)
    return CAUSAL[request.param]().eval()


def test_a_causal_model(causal: PreTrainedModel) -> None:
    cache, clones = recorded(causal, lambda: causal(IDS))
    assert len(clones) > 15
    assert cache[""].output.logits.shape == (2, 6, 50)


def test_a_causal_model_that_generates(causal: PreTrainedModel) -> None:
    options = {"max_new_tokens": 4, "min_new_tokens": 4, "do_sample": False}
    expected = causal.generate(IDS, attention_mask=torch.ones_like(IDS), **options)

    def run() -> None:
        assert torch.equal(causal.generate(IDS, attention_mask=torch.ones_like(IDS), **options), expected)

    cache, _ = recorded(causal, run, include_inputs=True)
    assert [step.inputs[1]["input_ids"].shape[1] for step in cache[""]] == [6, 1, 1, 1]


def test_a_mixture_of_experts_records_each_expert_s_own_tokens() -> None:
    class Experts(nn.Module):
        """Each token goes to one expert, which may get none."""

        def __init__(self) -> None:
            super().__init__()
            self.router = nn.Linear(8, 4)
            self.experts = nn.ModuleList(nn.Sequential(nn.Linear(8, 8), nn.SiLU()) for _ in range(4))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            chosen = self.router(x).argmax(-1)
            out = torch.zeros_like(x)
            for number, expert in enumerate(self.experts):
                out[chosen == number] = expert(x[chosen == number])
            return out

    model = Experts()
    x = torch.randn(5, 8)
    cache, _ = recorded(model, lambda: model(x), include_inputs=True)
    assert sum(len(cache[f"experts.{i}"].output) for i in range(4)) == 5
    assert min(len(cache[f"experts.{i}"].output) for i in range(4)) == 0


def test_a_key_value_cache_in_the_arguments() -> None:
    torch.manual_seed(0)
    model = CAUSAL["llama"]().eval()
    with torch.no_grad():
        past = model(IDS, use_cache=True).past_key_values
    # transformers 5.24 and later call the argument `cache`
    parameters = inspect.signature(type(model).forward).parameters
    name = "past_key_values" if "past_key_values" in parameters else "cache"
    cache, _ = recorded(model, lambda: model(IDS[:, :1], **{name: past, "use_cache": True}), include_inputs=True)
    kwargs = cache[""].inputs[1]
    assert kwargs[name] is past  # no container: kept by reference, as nnsight does
    assert past.get_seq_length() == 7
    attention = cache["model.layers.1.self_attn"].inputs[1]
    assert attention[name] is past
    cos, sin = attention["position_embeddings"]
    assert cos.shape == sin.shape == (1, 1, 8)
    assert all(cos is not part for part in past.layers)


def test_a_key_value_cache_that_is_a_nest_of_tensors_is_recorded_as_it_was() -> None:
    class Attention(nn.Module):
        def forward(self, x: torch.Tensor, *, past: dict[str, list[torch.Tensor]]) -> torch.Tensor:
            past["keys"][0].add_(x)  # as a static cache is written
            past["keys"].append(x)
            return past["keys"][0].sum(0)

    keys = torch.zeros(2, 3)
    model = Attention()
    cache, _ = recorded(model, lambda: model(torch.ones(2, 3), past={"keys": [keys]}), include_inputs=True)
    (kept,) = cache[""].inputs[1]["past"]["keys"]
    assert (keys == 1).all()
    assert (kept == 0).all()


# ---- other networks ----


class Residual(nn.Module):
    """A block of a ResNet, with its in-place operations."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.relu = nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out = self.relu(self.bn1(self.conv1(x)))
        out = self.bn2(self.conv2(out))
        out += x
        return self.relu(out)


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("training", [False, True])
def test_a_residual_network_with_operations_in_place(training: bool, memory_format: torch.memory_format) -> None:
    model = nn.Sequential(nn.Conv2d(3, 8, 3), Residual(8), Residual(8), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    model.train(training).to(memory_format=memory_format)
    x = torch.randn(2, 3, 16, 16).to(memory_format=memory_format)
    cache, _ = recorded(model, lambda: model(x))
    bn2, block = cache["1.bn2"].output, cache["1"].output
    assert (bn2 < 0).any()  # before the addition and the ReLU, both in place, changed it
    assert torch.equal(block, (bn2 + cache["0"].output).relu())
    assert block.is_contiguous(memory_format=memory_format)


def test_a_network_whose_output_it_overwrites_in_the_next_call() -> None:
    class Buffered(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("out", torch.zeros(3))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.out.copy_(x)

    model = Buffered()
    cache, _ = recorded(model, lambda: [model(torch.full((3,), float(i))) for i in range(4)])
    assert [step.output[0].item() for step in cache[""]] == [0, 1, 2, 3]


@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU, nn.RNN])
def test_a_recurrent_network(kind: type[nn.Module]) -> None:
    model = nn.Sequential()
    model.add_module("rnn", kind(4, 6, num_layers=2, bidirectional=True, batch_first=True))
    x = torch.randn(3, 5, 4)
    cache, _ = recorded(model, lambda: model(x))
    out, state = cache["rnn"].output
    assert out.shape == (3, 5, 12)
    assert (state[0] if kind is nn.LSTM else state).shape == (4, 3, 6)


def test_a_transformer_of_torch_s_own() -> None:
    layer = nn.TransformerEncoderLayer(16, 4, 32, batch_first=True)
    model = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
    x = torch.randn(2, 5, 16)
    cache, _ = recorded(model.train(), lambda: model(x))
    assert cache["layers.1"].output.shape == (2, 5, 16)


@pytest.mark.skipif(version_of(torch) < (2, 5), reason="torch 2.4 asks for no hooks before it runs it as one operation")
@pytest.mark.parametrize("modules", [None, "layers.*.linear1"])
def test_a_transformer_that_torch_would_run_as_one_operation(modules: Any) -> None:
    layer = nn.TransformerEncoderLayer(16, 4, 32, batch_first=True)
    model = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False).eval()
    x = torch.randn(2, 5, 16)
    with torch.no_grad():
        with clones_of_outputs(model) as clones:  # whose hooks keep torch from it
            model(x)
        with nntap.capture(model, modules=modules) as cache:
            model(x)
    assert len(cache) == (2 if modules else 19)
    assert_records_are(cache, {path: clones[path] for path in cache})
    assert hooks_of(model) == []
