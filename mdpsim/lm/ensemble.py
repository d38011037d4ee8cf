r"""Many small models trained side by side: one pass for all of them.

A claim needs hundreds of runs of a model of a few thousand weights, and a step of one such model costs mostly the overhead of
its operations. An ``Ensemble`` stacks the weights of K models of one shape and maps the model over them (torch.func.vmap), at
a small multiple of the cost of one.

Nothing is shared: member k computes what it would compute alone. Adam works on every weight by itself, so that the gradient
of a sum of the members' losses trains each on its own loss. On a CPU with one thread a member's numbers are bit for bit the
same in every ensemble (a test compares splits); the fused Adam would not be.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call, stack_module_state, vmap
from torch.nn.attention import SDPBackend, sdpa_kernel

from mdpsim.arrays import fail
from mdpsim.lm.model import LanguageModel


class Ensemble(nn.Module):
    """K models with the same shapes of weights.

    Args:
        models: the members; their weights are copied, frozen ones stay frozen.
    Raises:
        ValueError: no model, or models whose weights differ in name or shape.
    """

    def __init__(self, models: Sequence[LanguageModel]) -> None:
        super().__init__()
        shapes = [{name: (p.shape, p.requires_grad) for name, p in m.named_parameters()} for m in models]
        if not shapes or any(s != shapes[0] for s in shapes):
            fail("Ensemble", "models", "be one or more models of the same shape", f"{len(shapes)} models that differ" if shapes
                 else "none")
        stacked, _ = stack_module_state(list(models))  # type: ignore[arg-type]
        self._member = [models[0]]  # in a list, so that its own weights are not among the ensemble's
        self._names = list(stacked)
        self.weights = nn.ParameterList(nn.Parameter(p.detach(), requires_grad=p.requires_grad) for p in stacked.values())

    def __len__(self) -> int:
        return len(self.weights[0])

    def read(self, look: Callable[[LanguageModel], Any]) -> Any:
        """What ``look(model)`` returns (a tensor, or a list of tensors), with an axis [K] of members in front; differentiable."""
        reader = _Reader(self._member[0], look)
        weights = {f"model.{name}": w for name, w in zip(self._names, self.weights, strict=True)}
        with sdpa_kernel(SDPBackend.MATH):  # the CPU's own kernel for attention has no rule for vmap
            return vmap(lambda w: functional_call(reader, w, ()))(weights)

    def adam(self, rate: float) -> torch.optim.Optimizer:
        """Adam for every member; not the fused one, whose rounding depends on where a weight lies in the stack."""
        return torch.optim.Adam([w for w in self.weights if w.requires_grad], lr=rate, eps=1e-12, fused=False)

    def slopes(self) -> Tensor:
        """[K] norms of the members' gradients, as they stand."""
        squares = [w.grad.flatten(1).square().sum(dim=1) for w in self.weights if w.grad is not None]
        return torch.stack(squares).sum(dim=0).sqrt()

    @torch.no_grad()
    def put_back(self, models: Sequence[LanguageModel]) -> None:
        """Copy the members' weights into models of their shape."""
        for k, model in enumerate(models):
            for p, w in zip(model.parameters(), self.weights, strict=True):
                p.copy_(w[k])


class _Reader(nn.Module):
    """A model and what is read of it, as the module that ``functional_call`` asks for."""

    def __init__(self, model: LanguageModel, look: Callable[[LanguageModel], Any]) -> None:
        super().__init__()
        self.model, self.look = model, look

    def forward(self) -> Any:
        return self.look(self.model)
