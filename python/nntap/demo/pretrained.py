"""Load a model and its tokeniser from the disk with transformers. Nothing is ever downloaded."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from nntap.demo.errors import DemoError
from nntap.demo.extras import INSTALL, WEIGHTS_MODEL, WEIGHTS_PACKAGE, has, weights_folder
from nntap.demo.fallback import random_subject
from nntap.demo.subject import Batch, Subject, mask_of

MAX_TOKENS = 2048  # of one forward, with padding: every module's output is kept


def load(model: str | None) -> Subject:
    """The model to look at.

    Args:
        model: a folder, or the ID of a model in the local Hugging Face cache. None is the MiniLM of the demo
            extra, or a small model with random weights where that is not installed.

    Raises:
        DemoError: the model is not on this machine, cannot be loaded, or is of a kind the demo does not show.
    """
    if model is None:
        folder = weights_folder() if has("transformers") else None
        if folder is None:
            return random_subject()
        return _load(str(folder), f"{WEIGHTS_MODEL} (from the package {WEIGHTS_PACKAGE})")
    if not has("transformers"):
        raise DemoError(f"--model {model} needs transformers, which is not installed. To get it: {INSTALL}")
    return _load(_existing(model), model)


def is_causal(config: Any) -> bool:
    """Whether a transformers config is that of a model which predicts the next token.

    What the weights were saved as decides. A config that does not say so is causal if it is a decoder, or
    if its type has a causal head and no masked one (GPT-2, Llama, ...).
    """
    from transformers.models.auto import modeling_auto as auto

    if config.architectures:
        heads = set(auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.values())
        return any(name in heads for name in config.architectures)
    if getattr(config, "is_decoder", False):
        return True
    kind = config.model_type
    return kind in auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES and kind not in auto.MODEL_FOR_MASKED_LM_MAPPING_NAMES


def _existing(model: str) -> str:
    path = Path(model).expanduser()
    if path.is_dir():
        if not (path / "config.json").is_file():
            raise DemoError(f"--model: the folder {model!r} has no config.json, so it is not a saved model.")
        return str(path)
    if path.exists():
        raise DemoError(f"--model: {model!r} is a file. Give the folder it is in, or a model ID.")
    if path.is_absolute() or model.startswith((".", "~")) or model.count("/") > 1:
        raise DemoError(f"--model: there is no folder {model!r}.")
    return model


def _load(source: str, title: str) -> Subject:
    try:
        with _quiet():
            return _read(source, title)
    except DemoError:
        raise
    except Exception as error:  # transformers raises a dozen kinds for a model that is missing or broken
        reason = " ".join(str(error).split()) or type(error).__name__
        raise DemoError(f"--model: cannot load the model {source!r}: {reason}") from error


def _read(source: str, title: str) -> Subject:
    from transformers import AutoConfig, AutoModel, AutoModelForCausalLM, AutoTokenizer

    if not Path(source).is_dir() and not _cached(source):
        raise DemoError(
            f"--model: the model {source!r} is not on this machine, and the demo downloads nothing. Give a "
            f"folder with config.json, weights and tokeniser, or fetch the model first: hf download {source}"
        )
    config = AutoConfig.from_pretrained(source, local_files_only=True)
    if getattr(config, "is_encoder_decoder", False):
        raise DemoError(
            f"--model: {source!r} is an encoder-decoder ({config.model_type}). The demo shows encoders "
            "(BERT, ...) and causal models (GPT-2, Llama, ...)."
        )
    causal = is_causal(config)
    loader = AutoModelForCausalLM if causal else AutoModel
    tokenizer = AutoTokenizer.from_pretrained(source, local_files_only=True)
    model, info = loader.from_pretrained(source, local_files_only=True, output_loading_info=True)
    # Without its files transformers makes a tokeniser that knows its special tokens alone.
    if len(tokenizer) <= len(tokenizer.added_tokens_decoder):
        raise DemoError(
            f"--model: {source!r} has no tokeniser files. Save the model's tokeniser into it: "
            "tokenizer.save_pretrained(folder)"
        )
    model.config.use_cache = False  # a key-value cache in the outputs is of no use for one forward
    notes = []
    if missing := sorted(info["missing_keys"]):
        notes.append(f"{len(missing)} weights are missing from the files, so random: {', '.join(missing[:4])} ...")
    return Subject(
        title=title,
        model=model.eval(),
        encode=Encoder(tokenizer, _limit(tokenizer, config)),
        causal=causal,
        decode=tokenizer.decode,
        random_weights=False,
        notes=tuple(notes),
    )


def _cached(model: str) -> bool:
    from huggingface_hub import try_to_load_from_cache

    return isinstance(try_to_load_from_cache(model, "config.json"), str)


def _limit(tokenizer: Any, config: Any) -> int:
    """The most tokens a sentence may have. Tokenisers that know none say 1e30."""
    positions = getattr(config, "max_position_embeddings", None) or getattr(config, "n_positions", None)
    return min(int(tokenizer.model_max_length), int(positions or MAX_TOKENS), MAX_TOKENS)


class Encoder:
    """Sentences to a batch, padded on the right, through a transformers tokeniser."""

    def __init__(self, tokenizer: Any, limit: int) -> None:
        self.tokenizer = tokenizer
        self.limit = limit
        tokenizer.padding_side = "right"  # after the last token: what a causal model never looks at
        if tokenizer.pad_token is None:
            tokenizer.pad_token = tokenizer.eos_token or tokenizer.convert_ids_to_tokens(0)

    def __call__(self, sentences: Sequence[str]) -> Batch:
        encoding = self.tokenizer(list(sentences), padding=True, return_tensors="pt")
        inputs: dict[str, torch.Tensor] = dict(encoding)
        ids = inputs["input_ids"]
        mask = mask_of(ids, inputs.get("attention_mask"))
        lengths = mask.sum(dim=1)
        if int(lengths.min()) == 0:
            empty = sentences[int(lengths.argmin())]
            raise DemoError(f"--text: the tokeniser makes no token of {empty!r}. Leave the line out.")
        if int(lengths.max()) > self.limit:
            longest = sentences[int(lengths.argmax())]
            raise DemoError(
                f"--text: a sentence has {int(lengths.max())} tokens; the model takes {self.limit}. "
                f"It begins: {longest[:60]!r}"
            )
        if ids.numel() > MAX_TOKENS:
            raise DemoError(
                f"--text: {ids.shape[0]} sentences of up to {ids.shape[1]} tokens are {ids.numel()} tokens "
                f"in one forward; the demo takes {MAX_TOKENS}. Give fewer or shorter sentences."
            )
        return Batch(inputs, mask)


@contextmanager
def _quiet() -> Iterator[None]:
    """transformers without its own progress bars and reports: missing weights are told in the notes."""
    from transformers.utils import logging

    verbosity = logging.get_verbosity()
    bars = logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()
