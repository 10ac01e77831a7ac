"""Bottleneck adapters (Pfeiffer et al. 2021, as the adapters library builds them) on one base model that stays loaded."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from classify import cast_once
from plan import Shape

from hubrank.target.base import BaseModel, load_base

NAME = "transfer"


class BottleneckModel:
    """The base model with one bottleneck adapter, replaced in every run."""

    def __init__(self, base: BaseModel, device: str) -> None:
        self._base, self._device = base, device
        self._model: Any = None

    def start(self, shape: Shape, tensors: dict[str, Any] | None, seed: int) -> Any:
        """The model with a fresh adapter drawn from ``seed``, or with a source's."""
        import adapters
        import torch

        # It warns of an idle adapter while it activates it.
        logging.getLogger("adapters").setLevel(logging.ERROR)
        if self._model is None:
            self._model, _ = load_base(self._base)
            adapters.init(self._model)
        else:
            self._model.delete_adapter(NAME)
        torch.manual_seed(seed)
        self._model.add_adapter(NAME, config=adapters.SeqBnConfig(reduction_factor=shape.rank))
        self._model.train_adapter(NAME)
        cast_once(self._model, self._device).to(self._device)
        if tensors is not None:
            own = dict(parameters(self._model))
            if own.keys() != tensors.keys():
                raise ValueError(f"the source does not fit {shape}: {sorted(own.keys() ^ tensors.keys())[0]}")
            with torch.no_grad():
                for name, tensor in tensors.items():
                    own[name].copy_(tensor)
        return self._model


def parameters(model: Any) -> list[tuple[str, Any]]:
    return [(name, value) for name, value in model.named_parameters() if f".{NAME}." in name]


def save(model: Any, folder: Path, task: str) -> None:
    """Save as the adapters library does, under the task's name."""
    from safetensors.torch import load_file, save_file

    model.save_adapter(str(folder), NAME, use_safetensors=True)
    file = folder / "adapter.safetensors"
    save_file({key.replace(f".{NAME}.", f".{task}."): value for key, value in load_file(file).items()}, file, {"format": "pt"})
    config = folder / "adapter_config.json"
    config.write_text(config.read_text().replace(f'"name": "{NAME}"', f'"name": "{task}"'))


def read(folder: Path, task: str) -> dict[str, Any]:
    """An adapter's tensors under the names that they have in the model."""
    from safetensors.torch import load_file

    return {
        key.replace(f".{task}.", f".{NAME}."): value.float() for key, value in load_file(folder / "adapter.safetensors").items()
    }
