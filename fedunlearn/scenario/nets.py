"""From a scenario to its nets."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from fedunlearn.data import SiteData
from fedunlearn.errors import InputError, unknown
from fedunlearn.nets import MakeNet, build, gives_logits
from fedunlearn.scenario.schema import Scenario


def net_maker(scenario: Scenario, data: Mapping[str, SiteData]) -> MakeNet:
    """Makes nets of the scenario's architectures; each that a model has is tried once on real rows.

    Raises:
        InputError: a net cannot be made, or does not turn rows into outputs, the same rows into the same.
    """
    held = (rows for d in data.values() for rows in (*d.shards.values(), *d.held_out.values()) if len(rows))
    if (sample := next(held, None)) is None:
        raise InputError(
            f"{scenario.name}: no site is named and no set to test on, so that no net can be tried on a row; say which site "
            f"holds the rows that a model was trained on (`site:`), or give `test:` under `data`"
        )
    shape, classes = tuple(sample.x.shape[1:]), len(sample.classes)
    for name in dict.fromkeys(scenario.net_of(m) for m in scenario.models):
        spec = _net_spec(scenario, name)
        net = build(spec, shape, classes).eval()
        try:
            with torch.no_grad():
                out, again = net(sample.x[:2]), net(sample.x[:2])
        except Exception as error:  # whatever the user's net raises is theirs to read
            raise InputError(f"net {dict(spec)}: raised {type(error).__name__} on rows of shape {shape}: {error}") from error
        if not isinstance(out, torch.Tensor) or out.shape != (len(sample.x[:2]), classes):
            got = tuple(out.shape) if isinstance(out, torch.Tensor) else type(out).__name__
            raise InputError(
                f"net {dict(spec)}: gave {got} for {len(sample.x[:2])} rows, expected one output a class ({classes})"
            )
        if not torch.allclose(out, again, equal_nan=True):
            raise InputError(
                f"net {dict(spec)}: its outputs differ from call to call on the same {len(sample.x[:2])} rows, in eval mode, "
                f"so that no score could be taken again; use nn.Dropout, or dropout(..., training=self.training)"
            )
        if not gives_logits(net, sample.x[:2]):
            raise InputError(
                f"net {dict(spec)}: its outputs are not those of its last linear layer, which is taken for its head; give "
                f"logits (no softmax or scaling after it), and let no other linear layer be declared after the head"
            )
    return maker(scenario, shape)


def maker(scenario: Scenario, shape: tuple[int, ...]) -> MakeNet:
    """Makes nets of the scenario's architectures for inputs of a shape, untried."""

    def make(outputs: int, net: str, seed: int = 0) -> nn.Module:
        return build(_net_spec(scenario, net), shape, outputs, seed)

    return make


def _net_spec(scenario: Scenario, name: str) -> Mapping[str, Any]:
    return net_spec(scenario.net, scenario.nets, scenario.data.vocabulary, name)


def net_spec(
    net: Mapping[str, Any], nets: Mapping[str, Mapping[str, Any]], vocabulary: int | None, name: str
) -> Mapping[str, Any]:
    """What an architecture is built from.

    Args:
        net: the family's own.
        nets: the others by name.
        vocabulary: how many tokens the data counts; a net for texts counts alike.
        name: of the architecture; empty for the family's own.

    Raises:
        InputError: there is none of that name.
    """
    if name and name not in nets:
        raise unknown("net", name, nets, where="nets")
    spec = nets[name] if name else net
    if str(spec.get("name", "")).startswith("text_") and vocabulary is not None:
        return {"vocabulary": vocabulary, **spec}
    return spec
