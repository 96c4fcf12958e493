"""Exchanging layers inside a network."""

from collections.abc import Callable

from torch import nn


def replace_layers(
    module: nn.Module, kind: type[nn.Module], make: Callable[[nn.Module], nn.Module]
) -> None:
    """Replace each layer of class `kind` inside `module` by `make(layer)`."""
    for name, child in module.named_children():
        if isinstance(child, kind):
            setattr(module, name, make(child))
        else:
            replace_layers(child, kind, make)
