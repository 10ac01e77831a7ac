"""Sources at work: the base model with one source's update in it, and what it makes of texts.

hubrank never runs a source to rank it. Several of its rivals do, and to be measured they are run here: from the canonical
factors that the zoo keeps, which hold a LoRA's whole update, so that no file of a hub is loaded by a library.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np

from hubrank.checkpoints.architectures import site_of
from hubrank.signatures.canonical import SHIFT
from hubrank.target.architecture import architecture_of, longest_input
from hubrank.target.batching import Batch, in_parts, sent
from hubrank.target.frameworks import import_torch, in_bfloat16
from hubrank.target.objectives import Reader
from hubrank.target.objectives.inputs import encode, pooled_states

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    from hubrank.types import Factors, FloatArray, Signature

    Numbers = NDArray[np.float64]

__all__ = ["PROBES", "Head", "SourceModel", "fit_head"]

_ROOM = 128  # tokens, as classification targets are tuned
_ROWS = 64

PROBES = tuple(
    f"{opening}\n\n### Instruction:\nPlease provide a response.\n\n### Input:\nInput.\n\n### Response:"
    for opening in (
        (
            "Below is an instruction that describes a task, paired with an input that provides further context. "
            "Write a response that appropriately completes the request."
        ),
        "The task described below requires a response that completes the request accurately.",
        "Below is a description of a task. Provide a response that aligns with the requirements.",
        "The following instruction outlines a task. Generate a response that meets the specified request.",
        "You are given an instruction and input. Write a response that completes the task as requested.",
    )
)
"""Five generic prompts on Alpaca's template with a dummy instruction and input, for Delta Activations."""


class Head:
    """A linear head: weight [outputs, d] and bias [outputs]; one output for numbers, one a class for classes."""

    def __init__(self, weight: Any, bias: Any, *, regression: bool) -> None:
        self.weight, self.bias, self.regression = weight, bias, regression

    def loss(self, torch: Any, states: Any, labels: Any) -> Any:
        """Negative log-likelihood of labels [n] at states [n, d], summed: categorical, or normal with deviation 1."""
        values = states @ self.weight.T + self.bias
        if self.regression:
            return 0.5 * ((values.squeeze(-1) - labels) ** 2).sum()
        return torch.nn.functional.cross_entropy(values, labels, reduction="sum")


def fit_head(states: ArrayLike, labels: ArrayLike, *, decay: float = 1e-2, rounds: int = 100) -> Head:
    """The linear head that explains the labels best, by L-BFGS; numbers are standardised.

    Args:
        states: [n, d].
        labels: [n] classes as integers from 0, or numbers.
        decay: weight of half the squared norm of the weights, a row.
    """
    torch = import_torch()
    x = torch.as_tensor(np.asarray(states, dtype=np.float32))
    y = _labels(torch, labels)
    regression = bool(y.is_floating_point())
    outputs = 1 if regression else int(y.max()) + 1
    weight = torch.zeros(outputs, x.shape[1], requires_grad=True)
    bias = torch.zeros(outputs, requires_grad=True)
    head = Head(weight, bias, regression=regression)
    optimizer = torch.optim.LBFGS([weight, bias], max_iter=rounds, line_search_fn="strong_wolfe")

    def closure() -> Any:
        optimizer.zero_grad()
        loss = head.loss(torch, x, y) / len(x) + 0.5 * decay * (weight**2).sum()
        loss.backward()
        return loss

    optimizer.step(closure)
    return Head(weight.detach(), bias.detach(), regression=regression)


class SourceModel:
    """A base model that wears one source's update at a time.

    Args:
        model, tokenizer: from :func:`hubrank.target.base.load_base`, without a head; the model goes to ``device``.
    """

    def __init__(self, model: Any, tokenizer: Any, *, device: str = "cpu") -> None:
        architecture = architecture_of(model.config)
        kinds = architecture == "encoder" and getattr(model.config, "type_vocab_size", 0) > 1
        self._reader = Reader(tokenizer, architecture, max(8, min(_ROOM, longest_input(model.config, tokenizer))), kinds=kinds)
        self._model, self._device = model.to(device).eval().requires_grad_(False), device
        self._modules = {
            site_of(name): module
            for name, module in model.named_modules()
            if type(module).__name__ in ("Linear", "Conv1D") and site_of(name).layer >= 0
        }

    def why_not(self, signature: Signature) -> str | None:
        """Why a source's update cannot be put on; None where it can."""
        for factors in signature.factors:
            if factors.site.module.endswith(SHIFT):
                return "it shifts as well as multiplies"
            module = self._modules.get(factors.site)
            if module is None or tuple(module.weight.shape) != _shape(module, factors):
                return f"the base model has no matrix for {factors.site}"
        return None

    @contextmanager
    def wearing(self, signature: Signature | None) -> Iterator[None]:
        """Within it, the model is the source's: ``U diag(S) V^T`` is on top of each matrix. None: the base itself.

        Raises:
            ValueError: the update cannot be put on.
        """
        torch = import_torch()
        if signature is None:
            yield
            return
        why_not = self.why_not(signature)
        if why_not is not None:
            raise ValueError(why_not)
        weights = [self._modules[factors.site].weight for factors in signature.factors]
        before = [weight.clone() for weight in weights]
        try:
            with torch.no_grad():
                for weight, factors in zip(weights, signature.factors, strict=True):
                    change = np.ascontiguousarray(_change(self._modules[factors.site], factors))
                    weight.add_(torch.as_tensor(change, dtype=weight.dtype, device=weight.device))
            yield
        finally:
            with torch.no_grad():
                for weight, kept in zip(weights, before, strict=True):
                    weight.copy_(kept)

    def states(self, texts: Sequence[str], pairs: Sequence[str] | None = None, *, precise: bool = False) -> FloatArray:
        """[n, d] float32: the mean over a text's tokens of the last hidden states or, of a decoder, the last token's.

        Args:
            precise: in the model's own precision, even where targets are tuned in bfloat16 arithmetic.
        """
        torch = import_torch()
        encoded = encode(self._reader, texts, pairs)
        lengths = np.array([len(row) for row in encoded.ids])
        out: list[Any] = [None] * len(lengths)
        kind, half = self._device.partition(":")[0], not precise and in_bfloat16(self._model, self._device)
        with torch.inference_mode(), torch.autocast(kind, dtype=torch.bfloat16, enabled=half):
            for rows in in_parts(np.argsort(lengths, kind="stable"), _ROWS):
                states = self._pooled(torch, encoded.arrays(self._reader, rows.tolist()))
                for row, state in zip(rows, states.float().cpu().numpy(), strict=True):
                    out[row] = state
        return np.stack(out)

    def fisher(self, texts: Sequence[str], pairs: Sequence[str] | None, labels: ArrayLike, head: Head) -> FloatArray:
        """[k] diagonal of the empirical Fisher information of the layers' matrices, mean over the inputs of each output unit.

        Vu et al. (EMNLP 2020), section 3: gradients of the log-likelihood of the true labels, squared, mean over the rows;
        averaged over what leads to one unit as Achille et al. (ICCV 2019), section 3, average over a filter.
        """
        torch = import_torch()
        encoded, y = encode(self._reader, texts, pairs), _labels(torch, labels).to(self._device)
        head = Head(head.weight.to(self._device), head.bias.to(self._device), regression=head.regression)
        modules = [self._modules[site] for site in sorted(self._modules)]
        lengths = np.array([len(row) for row in encoded.ids])
        total: list[Any] = [0.0] * len(modules)
        for rows in in_parts(np.argsort(lengths, kind="stable"), _ROWS // 4):
            with _caught(modules) as caught:
                states = self._pooled(torch, encoded.arrays(self._reader, rows.tolist()))
                loss = head.loss(torch, states, y[torch.as_tensor(rows, device=self._device)])
                gradients = torch.autograd.grad(loss, [caught[module][1] for module in modules])
            for i, (module, gradient) in enumerate(zip(modules, gradients, strict=True)):
                total[i] = total[i] + _squares(caught[module][0], gradient)
        fisher: FloatArray = np.concatenate([part.cpu().numpy() / len(texts) for part in total]).astype(np.float32)
        return fisher

    def _pooled(self, torch: Any, arrays: dict[str, NDArray[np.int64]]) -> Any:
        batch = sent(torch, Batch(arrays, len(arrays["input_ids"]), 1.0), self._device)
        out = self._model(**batch.model_inputs())
        return pooled_states(torch, out, batch["attention_mask"], last=self._reader.architecture == "decoder")


@contextmanager
def _caught(modules: Sequence[Any]) -> Iterator[dict[Any, tuple[Any, Any]]]:
    """What goes into each module and what comes out, [rows, width, d] each, while the model runs."""
    caught: dict[Any, tuple[Any, Any]] = {}

    def keep(module: Any, inputs: tuple[Any, ...], out: Any) -> None:
        # Of a frozen model nothing has gradients but what is asked for.
        caught[module] = inputs[0].detach(), out if out.requires_grad else out.requires_grad_(True)

    handles = [module.register_forward_hook(keep) for module in modules]
    try:
        yield caught
    finally:
        for handle in handles:
            handle.remove()


def _squares(inputs: Any, gradients: Any) -> Any:
    """[d_out] sum over rows of the squared gradient of a matrix, mean over its inputs, without forming the gradient.

    A row's gradient is G^T X of its tokens, so the squared norms of its rows are the diagonal of G^T (X X^T) G.
    """
    gram = inputs @ inputs.transpose(1, 2)
    return (gradients * (gram @ gradients)).sum((0, 1)) / inputs.shape[-1]


def _change(module: Any, factors: Factors) -> FloatArray:
    """What a site's update adds to the module's weight; GPT-2's layers keep theirs transposed."""
    change: FloatArray = np.asarray((factors.u * factors.s) @ factors.v.T, dtype=np.float32)
    return change.T if type(module).__name__ == "Conv1D" else change


def _shape(module: Any, factors: Factors) -> tuple[int, int]:
    shape = len(factors.u), len(factors.v)
    return shape[::-1] if type(module).__name__ == "Conv1D" else shape


def _labels(torch: Any, labels: ArrayLike) -> Any:
    values = np.asarray(labels)
    if np.issubdtype(values.dtype, np.integer):
        return torch.as_tensor(values.astype(np.int64))
    deviation = values.std()
    return torch.as_tensor(((values - values.mean()) / (deviation if deviation > 0 else 1.0)).astype(np.float32))
