"""Exchanging layers inside a network."""

from collections.abc import Callable

from torch import nn


def replace_layers(
    module: nn.Module, kind: type[nn.Module], make: Callable[[nn.Module], nn.Module]
) -> None:
    """Put `make(layer)` in the place of each layer of a `kind` inside `module`."""
    for name, child in module.named_children():
        if isinstance(child, kind):
            setattr(module, name, make(child))
        else:
            replace_layers(child, kind, make)
