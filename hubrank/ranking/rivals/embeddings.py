"""Rankings from one vector a task: parameters, texts, gradients or activations, compared by a cosine."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    Numbers = NDArray[np.float64]

__all__ = ["delta_activations", "flattened", "prompt_tokens", "task_embedding", "text_embedding"]


def flattened(*, target: ArrayLike, sources: ArrayLike) -> Numbers:
    """Cosine of the tuned parameters as they lie in the file, side by side.

    Zhou, Xu and McAuley, "Efficiently Tuned Parameters are Task Embeddings" (EMNLP 2022): LoRA's A and B, BitFit's biases,
    and of a prefix the mean over its tokens, which the caller takes. With another random initialisation for each adapter
    the same function has other A and B, so for LoRA off the shelf the cosine tells little.

    Args:
        target: [k].
        sources: [n, k].
    """
    mine, theirs = _unit(np.asarray(target, dtype=np.float64)), _unit(np.asarray(sources, dtype=np.float64))
    cosines: Numbers = theirs @ mine
    return cosines


def text_embedding(*, target: ArrayLike, sources: ArrayLike) -> Numbers:
    """Cosine of the mean embedding of the rows' texts, by the base model (TextEmb) or a sentence encoder (SEmb).

    Vu et al., "Exploring and Predicting Transferability across NLP Tasks" (EMNLP 2020); with a sentence encoder Poth et al.,
    "What to Pre-Train on? Efficient Intermediate Task Selection" (EMNLP 2021). It needs rows of every source task.

    Args:
        target: [d] mean over the target's rows.
        sources: [n, d].
    """
    return flattened(target=target, sources=sources)


def delta_activations(*, target: ArrayLike, sources: ArrayLike) -> Numbers:
    """Cosine of how tuning moved the activations on a few generic prompts, mean over the prompts.

    Xu et al., "Delta Activations: A Representation for Finetuned Large Language Models" (2025). Each source's model is run on
    the prompts once.

    Args:
        target: [d] mean over the prompts of tuned minus base activation.
        sources: [n, d].
    """
    return flattened(target=target, sources=sources)


def prompt_tokens(*, target: ArrayLike, sources: ArrayLike) -> Numbers:
    """Mean cosine over all pairs of a token of the target's prompt with one of the source's.

    Vu, Lester, Constant, Al-Rfou and Cer, "SPoT" (ACL 2022), section 3.2, "per-token average"; blind to the order of tokens.

    Args:
        target: [tokens, d].
        sources: [n, tokens, d].
    """
    mine = _unit(np.asarray(target, dtype=np.float64)).mean(axis=0)
    theirs = _unit(np.asarray(sources, dtype=np.float64)).mean(axis=1)
    cosines: Numbers = theirs @ mine
    return cosines


def task_embedding(*, target: ArrayLike, sources: ArrayLike) -> Numbers:
    """Task2Vec's symmetric similarity of two diagonal Fisher informations, parts of their sum compared by a cosine.

    Achille et al., "Task2Vec" (ICCV 2019), equation 4; TaskEmb of Vu et al. (EMNLP 2020) is the same vector of a text model.

    Args:
        target: [k] diagonal of the Fisher information of the target's tuned model, not negative.
        sources: [n, k].
    """
    mine = np.asarray(target, dtype=np.float64)[None]
    theirs = np.asarray(sources, dtype=np.float64)
    both = mine + theirs
    safe = np.where(both > 0, both, 1.0)
    parts = _unit(mine / safe), _unit(theirs / safe)
    cosines: Numbers = (parts[0] * parts[1]).sum(axis=1)
    return cosines


def _unit(vectors: Numbers) -> Numbers:
    sizes = np.linalg.norm(vectors, axis=-1, keepdims=True)
    unit: Numbers = vectors / np.where(sizes > 0, sizes, 1.0)
    return unit
