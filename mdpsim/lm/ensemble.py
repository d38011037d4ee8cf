r"""Many small models trained side by side: one pass for all of them.

A claim needs hundreds of runs of a model of a few thousand weights, and a step of one such model costs mostly the overhead of
its operations. An ``Ensemble`` keeps the weights of K models of one shape as the rows of one matrix and maps the model over
them (torch.func.vmap), at a small multiple of the cost of one.

Nothing is shared: member k computes what it would compute alone. Adam works on every weight by itself, so that the gradient
of a sum of the members' losses trains each on its own loss. On a CPU with one thread a member's numbers are bit for bit the
same in every ensemble (a test compares splits); with torch's fused Adam they would not be.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._pytree import tree_map

from mdpsim.arrays import fail
from mdpsim.lm.guards import guard_callable
from mdpsim.lm.model import LanguageModel, guard_language_model


class Ensemble(nn.Module):
    """K models with the same shapes of weights.

    ``flat`` [K, P] holds the members' trainable weights; the models themselves stay as they are until ``put_back``.

    Args:
        models: the members; frozen weights stay frozen.
    Raises:
        ValueError: no model, models whose weights differ in name or shape, nothing to train.
    """

    def __init__(self, models: Sequence[LanguageModel]) -> None:
        super().__init__()
        if not isinstance(models, Sequence):
            fail("Ensemble", "models", "be a sequence of LanguageModels", type(models).__name__)
        for m in models:
            guard_language_model("Ensemble", m, "each of models")
        shapes = [[(name, p.shape, p.requires_grad) for name, p in m.named_parameters()] for m in models]
        if not shapes or any(s != shapes[0] for s in shapes):
            fail("Ensemble", "models", "be one or more, of the same shape", f"{len(shapes)} that differ" if shapes else "none")
        self._free = [(name, shape) for name, shape, trained in shapes[0] if trained]
        if not self._free:
            fail("Ensemble", "models", "have weights to train", "none")
        self._member = [models[0]]  # in a list, so that its own weights are not among the ensemble's
        members = [dict(m.named_parameters()) for m in models]
        rows = [torch.cat([m[name].detach().flatten() for name, _ in self._free]) for m in members]
        self.flat = nn.Parameter(torch.stack(rows))
        self._fixed = {
            name: torch.stack([m[name].detach() for m in members]) for name, _, trained in shapes[0] if not trained
        }

    def __len__(self) -> int:
        return len(self.flat)

    def _named(self) -> dict[str, Tensor]:
        """Trainable weights by name, [K, ..].

        Copies, not views: products of matrices round by how their operands lie in memory, so each weight starts a block.
        """
        parts = self.flat.split([shape.numel() for _, shape in self._free], dim=1)
        return {
            name: part.clone(memory_format=torch.contiguous_format).view(-1, *shape)
            for (name, shape), part in zip(self._free, parts, strict=True)
        }

    def read(self, look: Callable[[LanguageModel], Any]) -> Any:
        """What ``look(model)`` returns (tensors, in lists or not), with an axis [K] of members in front; differentiable."""
        guard_callable("read", "look", look)
        reader = _Reader(self._member[0], look)
        weights = {f"model.{name}": w for name, w in (self._fixed | self._named()).items()}
        alone = len(self) == 1
        if alone:  # one matrix is multiplied by another routine than several are, and rounds otherwise
            weights = {name: torch.cat([w, w]) for name, w in weights.items()}
        with sdpa_kernel(SDPBackend.MATH):  # the CPU's own kernel for attention has no rule for vmap
            seen = vmap(lambda w: functional_call(reader, w, ()))(weights)
        return tree_map(lambda column: column[:1], seen) if alone else seen

    def adam(self, rate: float) -> torch.optim.Optimizer:
        """Adam for every member; not the fused one, whose rounding depends on where a weight lies in memory."""
        return torch.optim.Adam([self.flat], lr=rate, eps=1e-12, fused=False)

    @torch.no_grad()
    def put_back(self, models: Sequence[LanguageModel]) -> None:
        """Copy the members' weights into models of their shape."""
        named = self._named()
        for k, model in enumerate(models):
            for name, p in model.named_parameters():
                if name in named:
                    p.copy_(named[name][k])


class _Reader(nn.Module):
    """A model and what is read of it, as the module that ``functional_call`` asks for."""

    def __init__(self, model: LanguageModel, look: Callable[[LanguageModel], Any]) -> None:
        super().__init__()
        self.model, self.look = model, look

    def forward(self) -> Any:
        return self.look(self.model)
