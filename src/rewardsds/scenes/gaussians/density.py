"""Adding and removing Gaussians while an optimiser holds moments for each of them.

Every operation takes the scene's parameters by name and returns new ones; the optimiser's groups, found by
their `name`, are pointed at the new parameters and its per-Gaussian state is carried along.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor
from torch.nn import Parameter

from rewardsds.scenes.gaussians.reference import quaternion_to_matrix

PARAMETERS = ("means", "log_scales", "quats", "opacity_logits", "colour_logits")
"""What every Gaussian has. With colour that depends on the view there is also `harmonics`."""


def replace_parameters(
    parameters: Mapping[str, Parameter],
    values: Mapping[str, Tensor],
    carry: Callable[[Tensor], Tensor],
    optimizer: torch.optim.Optimizer,
) -> dict[str, Parameter]:
    """New parameters with the given values; `carry` maps every per-Gaussian moment to its new rows."""
    groups = {group.get("name"): group for group in optimizer.param_groups}
    replaced = {}
    for name, value in values.items():
        old = parameters[name]
        new = Parameter(value.contiguous())
        group = groups.get(name)
        if group is None or len(group["params"]) != 1 or group["params"][0] is not old:
            raise ValueError(
                f"the optimiser does not hold the scene's {name}; build it from scene.parameter_groups(), "
                "after any load_state_dict"
            )
        group["params"][0] = new
        state = optimizer.state.pop(old, None)
        if state is not None:
            optimizer.state[new] = {
                key: carry(moment) if torch.is_tensor(moment) and moment.shape == old.shape else moment
                for key, moment in state.items()
            }
        replaced[name] = new
    return replaced


def keep_gaussians(
    parameters: Mapping[str, Parameter], keep: Tensor, optimizer: torch.optim.Optimizer
) -> dict[str, Parameter]:
    """Only the Gaussians where `keep` (N,) is true, in their order, with their moments."""
    values = {name: parameter.detach()[keep] for name, parameter in parameters.items()}
    return replace_parameters(parameters, values, lambda moment: moment[keep], optimizer)


def append_gaussians(
    parameters: Mapping[str, Parameter], extra: Mapping[str, Tensor], optimizer: torch.optim.Optimizer
) -> dict[str, Parameter]:
    """`extra` Gaussians behind the present ones; their moments start at zero."""
    values = {name: torch.cat([parameter.detach(), extra[name]]) for name, parameter in parameters.items()}
    count = len(next(iter(extra.values())))
    return replace_parameters(
        parameters,
        values,
        lambda moment: torch.cat([moment, moment.new_zeros((count, *moment.shape[1:]))]),
        optimizer,
    )


def limited(wanted: Tensor, score: Tensor, room: int) -> Tensor:
    """At most `room` of the `wanted` (N,) bool, those of the highest score; ties go to the earlier one."""
    if int(wanted.sum()) <= room:
        return wanted
    order = torch.argsort(score.masked_fill(~wanted, -torch.inf), descending=True, stable=True)
    chosen = torch.zeros_like(wanted)
    chosen[order[: max(room, 0)]] = True
    return chosen & wanted


def split_offsets(quats: Tensor, log_scales: Tensor, pieces: int, generator: torch.Generator) -> Tensor:
    """Offsets (pieces, N, 3), drawn from the Gaussians themselves with a CPU generator."""
    noise = torch.randn((pieces, len(quats), 3), generator=generator).to(quats)
    return (quaternion_to_matrix(quats) @ (log_scales.exp() * noise)[..., None]).squeeze(-1)


def forget_moments(
    parameters: Mapping[str, Parameter], rows: Tensor, optimizer: torch.optim.Optimizer
) -> None:
    """Sets the per-Gaussian moments of `rows` (indices) to zero."""
    for parameter in parameters.values():
        for moment in optimizer.state.get(parameter, {}).values():
            if torch.is_tensor(moment) and moment.shape == parameter.shape:
                moment[rows] = 0
