"""A transformer with LoRA in its last layers, through PEFT: what is trained, what travels, what it says."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import torch

from fedpref.errors import ConfigurationError
from fedpref.models.cache import ActivationCache, recall
from fedpref.models.precision import Kept
from fedpref.models.split import capture, injected, layer_list
from fedpref.models.transformer import Checkpoint, encode, load_model, load_tokenizer
from fedpref.models.work import Cost, cost, matrices_met
from fedpref.objectives.least_work import LeastWork, least_work
from fedpref.types import Weights

__all__ = ["TEXTS_A_PASS", "Lora", "LoraModel", "lora_model"]

_HEADS = ("score", "classifier")
TEXTS_A_PASS = 8


@dataclass(frozen=True)
class Lora:
    """Where the low-rank weights sit.

    Attributes:
        rank: inner dimension of the product BA.
        alpha: the product is scaled by alpha / rank.
        dropout: on the input of A, in training only.
        target_modules: names of linear layers; empty means PEFT's choice for the architecture.
        last_layers: how many layers, from the top, have LoRA; 0 means all.

    Source: Hu et al. 2021, arXiv:2106.09685.
    """

    rank: int = 8
    alpha: int = 16
    dropout: float = 0.0
    target_modules: tuple[str, ...] = ()
    last_layers: int = 2


@lru_cache(maxsize=2)
def lora_model(checkpoint: Checkpoint, lora: Lora) -> LoraModel:
    """The reward model of this process for these options; built once."""
    return LoraModel(checkpoint, lora, load_model(checkpoint, reward=True))


class LoraModel:
    """A PEFT model that lives in one process; whoever uses it loads weights first.

    Keys of the weights are those of PEFT's own state dict, so an adapter is these weights in a file. The
    bias of a reward head, where the architecture has one, cancels in every margin: it stays zero,
    untrained, unsent.

    Attributes:
        peft: the PEFT model, in evaluation mode.
        trainable: the parameters by key, A, B and the reward head, if there is one.

    Raises:
        ConfigurationError: more layers than the model has, or target modules that it lacks.
    """

    def __init__(self, checkpoint: Checkpoint, lora: Lora, base: Any) -> None:
        self._checkpoint = checkpoint
        count = int(base.config.num_hidden_layers)
        if lora.last_layers > count:
            raise ConfigurationError(
                f"client.last_layers: {lora.last_layers} must be at most {count}, the model's layers"
            )
        self._is_reward = any(hasattr(base, name) for name in _HEADS)
        self._first = count - lora.last_layers if lora.last_layers else 0
        self._layers = layer_list(base, count)
        self.peft = _with_lora(base, checkpoint, lora, range(self._first, count))
        self.trainable = _trainable(self.peft)
        options = {} if self._is_reward else {"logits_to_keep": 1}
        self._matrices = matrices_met(self.peft, self._layers[: self._first], **options)

    @property
    def is_split(self) -> bool:
        """True if there are frozen layers whose activations can be kept."""
        return self._first > 0

    def flops(self, texts: Sequence[str], use_cache: bool, backward: bool = True) -> int:
        """Operations of one ``read`` of these texts, and of the way back; see ``fedpref.models.work``.

        The frozen layers count where they run in every step; where their results are kept, they do not.
        """
        tokens, of_pass, total = self.tokens(texts), self._cost(use_cache, backward), 0
        for some in _passes([(text, 0) for text in tokens], tokens, TEXTS_A_PASS):
            lengths = [len(tokens[text]) for text, _ in some]
            # A head over the vocabulary runs for every text wherever some text ends.
            outputs = len(some) * (1 if self._is_reward else len(set(lengths)))
            total += of_pass.flops(len(some), max(lengths), outputs)
        return total

    def least_work(
        self, texts: Sequence[tuple[str, str]], use_cache: bool, whole: int | None = None
    ) -> LeastWork:
        """Least operations of training on pairs of texts; ``whole`` as in ``fedpref.objectives``."""
        tokens = self.tokens([text for both in texts for text in both])
        of_step = self._cost(use_cache, backward=True)
        return least_work(texts, {text: of_step.flops(1, len(ids), 1) for text, ids in tokens.items()}, whole)

    def memory_bytes(self, texts: Sequence[str], use_cache: bool, copies: int) -> int:
        """All parameters, further copies of the trainable ones, and what is kept for these texts.

        Kept, if the cache is used, is a hidden state for each token of each distinct text.

        Args:
            texts: all texts of a client.
            use_cache: as in ``read``.
            copies: arrays for each trainable parameter beside itself: gradient, moments, anchor.
        """
        model: int = sum(p.numel() * p.element_size() for p in self.peft.parameters())
        trainable = sum(p.numel() * p.element_size() for p in self.trainable.values())
        num_kept = sum(map(len, self.tokens(texts).values())) if use_cache and self.is_split else 0
        bytes_each = np.dtype(self._checkpoint.activations).itemsize
        return model + copies * trainable + bytes_each * int(self.peft.config.hidden_size) * num_kept

    def activation_bytes(self, texts: Sequence[str], num_texts: int) -> int:
        """Room for what ``num_texts`` of the texts, were they the longest, leave for the way back.

        Counted are inputs and outputs of every matrix of the trainable layers, float32: about twice what
        is left by layers whose neighbours share arrays, and nothing of attention, which leaves no scores.
        """
        longest = max((len(ids) for ids in self.tokens(texts).values()), default=0)
        outputs = num_texts if self._is_reward else num_texts * min(num_texts, TEXTS_A_PASS)
        times = {True: num_texts * longest, False: outputs}
        run = [matrix for matrix in self._matrices if not matrix.is_kept]
        return sum(4 * (m.inputs + m.outputs) * times[m.is_per_token] for m in run)

    def _cost(self, use_cache: bool, backward: bool) -> Cost:
        config = self.peft.config
        heads = int(config.num_attention_heads)
        width = heads * int(getattr(config, "head_dim", None) or config.hidden_size // heads)
        frozen = self._first
        return cost(self._matrices, width, frozen, len(self._layers) - frozen, use_cache, backward)

    def fresh(self, rng: np.random.Generator, head_std: float, b_std: float = 0.0) -> dict[str, np.ndarray]:
        """Initial weights: A as in PEFT (uniform, He), B zero or Gaussian, the head Gaussian; float32."""
        weights = {}
        for key, parameter in self.trainable.items():
            shape = tuple(parameter.shape)
            if "lora_A" in key:
                bound = 1 / math.sqrt(shape[1])
                weights[key] = rng.uniform(-bound, bound, shape).astype(np.float32)
            elif "lora_B" in key and b_std == 0:
                weights[key] = np.zeros(shape, np.float32)
            else:
                std = b_std if "lora_B" in key else head_std
                weights[key] = (std * rng.standard_normal(shape)).astype(np.float32)
        return weights

    def check(self, weights: Weights) -> None:
        """Check that weights are this model's.

        Raises:
            ConfigurationError: keys or shapes are not.
        """
        expected = {key: tuple(parameter.shape) for key, parameter in self.trainable.items()}
        found = {key: tuple(array.shape) for key, array in weights.items()}
        if found != expected:
            wrong = sorted(
                key for key in expected.keys() | found.keys() if expected.get(key) != found.get(key)
            )
            raise ConfigurationError(f"client: these weights do not fit the model: {', '.join(wrong[:3])}")

    def load(self, weights: Weights) -> None:
        """Copy weights into the model.

        Raises:
            ConfigurationError: keys or shapes are not this model's.
        """
        self.check(weights)
        with torch.no_grad():
            for key, parameter in self.trainable.items():
                parameter.copy_(torch.from_numpy(np.array(weights[key], dtype=np.float32)))

    def weights(self) -> dict[str, np.ndarray]:
        """A copy of the weights, float32."""
        return {key: p.detach().cpu().numpy().copy() for key, p in self.trainable.items()}

    def train_dropout(self, active: bool) -> None:
        """Switch LoRA's dropout; that of the frozen model stays off."""
        for name, module in self.peft.named_modules():
            if "lora_dropout" in name:
                module.train(active)

    def tokens(self, texts: Sequence[str]) -> dict[str, np.ndarray]:
        """Token ids of every distinct text."""
        checkpoint = self._checkpoint
        return recall(f"tokens-{checkpoint.fingerprint}", texts, lambda text: encode(checkpoint, text))

    def states(self, texts: Sequence[str]) -> dict[str, np.ndarray]:
        """Hidden states of every distinct text as they enter the first trainable layer, from the cache."""
        return self._cache.recall(texts, self._states)

    def warm(self, texts: Sequence[str]) -> None:
        """Compute the hidden states of all these texts, if a cache keeps them."""
        if self.is_split:
            self._cache.fill(texts, self._states)

    def rewards(self, texts: Sequence[str], use_cache: bool = True) -> torch.Tensor:
        """Reward of each text, shape (num_texts,), differentiable; arguments as in ``read``."""
        return self.read(texts, self.reward_of, use_cache)

    def reward_of(self, inputs: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """Reward of each row of padded inputs, shape (num_rows,), differentiable."""
        rewards: torch.Tensor = self.peft(**inputs).logits[:, 0]
        return rewards

    def read(
        self,
        texts: Sequence[str],
        output: Callable[[Mapping[str, torch.Tensor]], torch.Tensor],
        use_cache: bool = True,
    ) -> torch.Tensor:
        """One number a text, shape (num_texts,), differentiable.

        Every distinct text runs once, beside others of about its length, so that little is padding.

        Args:
            texts: may repeat.
            output: runs ``peft`` on its inputs, padded on the right, and picks a number from each row.
            use_cache: run the trainable layers only, from cached activations; else the whole model.
        """
        return self.read_rows([(text, 0) for text in texts], lambda inputs, _: output(inputs), use_cache)

    def read_rows(
        self,
        rows: Sequence[tuple[str, int]],
        output: Callable[[Mapping[str, torch.Tensor], Sequence[int]], torch.Tensor],
        use_cache: bool = True,
        rows_a_pass: int = TEXTS_A_PASS,
    ) -> torch.Tensor:
        """As ``read``, for texts of several owners: a text runs once for each owner.

        Args:
            rows: texts and their owners; may repeat.
            output: gets the owner of each row, too.
            use_cache: as in ``read``.
            rows_a_pass: how many run at once.
        """
        tokens = self.tokens([text for text, _ in rows])
        passes, parts = _passes(rows, tokens, rows_a_pass), []
        for some in passes:
            inputs, owners = self._inputs([tokens[text] for text, _ in some]), [owner for _, owner in some]
            if not (use_cache and self.is_split):
                parts.append(output(inputs, owners))
                continue
            states = self.states([text for text, _ in some])
            cached = _padded([states[text] for text, _ in some], 0.0, self.peft.device).float()
            with injected(self._layers[: self._first], self._layers[self._first], cached):
                parts.append(output(inputs, owners))
        place = {row: n for n, row in enumerate(row for some in passes for row in some)}
        return torch.cat(parts)[[place[row] for row in rows]]

    @property
    def _cache(self) -> ActivationCache:
        at = self._checkpoint
        return ActivationCache(f"states-{at.fingerprint}-{self._first}-{at.activations}")

    def _states(self, text: str) -> np.ndarray:
        ids = torch.from_numpy(self.tokens([text])[text]).to(self.peft.device)
        return _as_kept(capture(self.peft, self._layers[self._first], ids), self._checkpoint.activations)

    def _inputs(self, ids: Sequence[np.ndarray]) -> dict[str, torch.Tensor]:
        pad = load_tokenizer(self._checkpoint).pad_token_id
        return {
            "input_ids": _padded(ids, pad, self.peft.device),
            "attention_mask": _padded([np.ones_like(row) for row in ids], 0, self.peft.device),
        }


def _passes(
    rows: Sequence[tuple[str, int]], tokens: Mapping[str, np.ndarray], size: int
) -> Sequence[Sequence[tuple[str, int]]]:
    """The distinct texts and owners in parts that run at once, texts of about one length together."""
    ordered = sorted(set(rows), key=lambda row: (len(tokens[row[0]]), *row))
    return [ordered[start : start + size] for start in range(0, len(ordered), size)]


def _padded(rows: Sequence[np.ndarray], value: float, device: torch.device) -> torch.Tensor:
    """Rows of equal length on a device; a GPU copies from pinned memory while this process goes on."""
    shape = (len(rows), max(map(len, rows)), *rows[0].shape[1:])
    dtype = torch.from_numpy(np.empty(0, rows[0].dtype)).dtype
    padded = torch.full(shape, value, dtype=dtype, pin_memory=device.type == "cuda")
    for row, target in zip(rows, padded.numpy(), strict=True):
        target[: len(row)] = row
    return padded.to(device, non_blocking=True)


def _as_kept(states: np.ndarray, kind: Kept) -> np.ndarray:
    largest, bound = np.abs(states).max(), np.finfo(kind).max
    if bound < largest < np.inf:
        raise ConfigurationError(
            f"backbone.activations={kind}: a hidden state of {largest:.3g} is beyond its {bound}; use float32"
        )
    return states.astype(kind, copy=False)


def _with_lora(base: Any, checkpoint: Checkpoint, lora: Lora, layers: Sequence[int]) -> Any:
    from peft import LoraConfig, TaskType, get_peft_model

    head = next((name for name in _HEADS if hasattr(base, name)), None)
    config = LoraConfig(
        task_type=TaskType.CAUSAL_LM if head is None else TaskType.SEQ_CLS,
        r=lora.rank,
        lora_alpha=lora.alpha,
        lora_dropout=lora.dropout,
        target_modules=list(lora.target_modules) or None,
        layers_to_transform=list(layers),
        modules_to_save=None if head is None else [head],  # None: the model's own head stays frozen
        base_model_name_or_path=checkpoint.model,
        revision=checkpoint.revision,
    )
    try:
        with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*is_gradient_checkpointing", category=FutureWarning)
            model = get_peft_model(base, config)
    except ValueError as error:
        raise ConfigurationError(
            f"client.target_modules: {list(lora.target_modules)} does not fit '{checkpoint.model}': {error}"
        ) from error
    return model.eval()


def _trainable(model: Any) -> Mapping[str, torch.nn.Parameter]:
    found = {}
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        if name.endswith("bias"):
            parameter.requires_grad_(False)
            parameter.data.zero_()
            continue
        found[name.replace(".modules_to_save.default", "").replace(".default", "")] = parameter
    return dict(sorted(found.items()))
