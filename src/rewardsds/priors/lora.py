"""A second prediction from the same network: low-rank adapters that can be trained, switched on for a call."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from diffusers.models.embeddings import TimestepEmbedding
from peft import LoraConfig
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import Tensor, nn

from rewardsds.priors.base import Condition
from rewardsds.priors.latent import LatentPrior
from rewardsds.priors.multiview import CAMERA_CHANNELS, camera_embedding

ATTENTION = ("to_q", "to_k", "to_v", "to_out.0")
CONVOLUTIONS = ("conv1", "conv2")
"""Of a UNet's residual blocks; other networks have none."""


class LoRAEstimator:
    """ε̂_ψ: the prior's own network with LoRA (arXiv 2106.09685) in its attention, as VSD's estimator has it, and in
    its convolutions where asked. A network that attends at coarse resolutions only cannot learn what noise lies in the
    detail by its attention alone, and VSD then leaves that noise in the pictures.

    The prior's weights are shared, so that it costs the memory of the adapters alone; outside of the estimator's
    calls they are switched off, and the prior predicts what it did before, to the bit. A prior without a camera
    embedding gets one here, starting at zero, for calls whose condition has cameras (arXiv 2305.16213, section 3.3).
    """

    def __init__(
        self,
        prior: LatentPrior,
        rank: int = 4,
        name: str = "estimator",
        seed: int = 0,
        convolutions: bool = False,
    ) -> None:
        """name: of the adapter; a prior can hold several. seed: of the initial A; B is zero at first. convolutions:
        adapters in the residual blocks too, where the network has such."""
        if rank < 1:
            raise ValueError(f"the rank of an adapter is at least 1, got {rank}")
        network = prior.network
        if name in getattr(network, "peft_config", {}):
            raise ValueError(f"the prior has an adapter {name!r} already: give another name")
        self.prior = prior
        self.name = name
        device = prior.alphas_cumprod.device
        with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
            torch.manual_seed(seed)
            targets = [*ATTENTION, *(CONVOLUTIONS if convolutions else ())]
            network.add_adapter(
                LoraConfig(r=rank, lora_alpha=rank, init_lora_weights=True, target_modules=targets), name
            )
            self.camera: TimestepEmbedding | None = None
            if not prior.sees_cameras:
                self.camera = TimestepEmbedding(CAMERA_CHANNELS, _width(prior.time_embedding)).to(device)
                nn.init.zeros_(self.camera.linear_2.weight)
                nn.init.zeros_(self.camera.linear_2.bias)
        self._parameters = {
            key: value for key, value in network.named_parameters() if f".{name}." in key and "lora_" in key
        }
        for value in self._parameters.values():
            value.data = value.data.float()
        self._layers = [module for module in network.modules() if isinstance(module, BaseTunerLayer)]
        if self.camera is not None:
            self._parameters |= {f"camera.{key}": value for key, value in self.camera.named_parameters()}
        self._switch_off()

    def parameters(self) -> list[nn.Parameter]:
        return list(self._parameters.values())

    def predict(self, noisy: Tensor, timesteps: Tensor, condition: Condition) -> Tensor:
        """ε̂_ψ for (N, B, V, D, h, w) at (B,); carries gradient to the adapters where gradient is enabled."""
        with self._switched_on():
            prediction = self.prior.predict(
                noisy, timesteps, condition, unconditional=False, beside_time=self._seen_from(condition)
            )
        return prediction.conditional

    def state_dict(self) -> dict[str, Tensor]:
        return {key: value.detach() for key, value in self._parameters.items()}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        with torch.no_grad():
            for key, value in self._parameters.items():
                value.copy_(state[key])

    def remove(self) -> None:
        """Takes the adapters out of the prior."""
        self.prior.network.delete_adapters(self.name)

    def _seen_from(self, condition: Condition) -> Tensor | None:
        """(B, V, C), or None where the prior takes cameras itself, or there are none."""
        if self.camera is None or condition.camera_to_world is None:
            return None
        poses = condition.camera_to_world.to(self.camera.linear_1.weight.device, torch.float32)
        return self.camera(camera_embedding(poses))

    @contextmanager
    def _switched_on(self) -> Iterator[None]:
        for layer in self._layers:
            layer.enable_adapters(True)
            layer.set_adapter(self.name)
        try:
            yield
        finally:
            self._switch_off()

    def _switch_off(self) -> None:
        """The prior predicts as it is; the adapters stay trainable, whose gradient comes after the call."""
        for layer in self._layers:
            layer.enable_adapters(False)
        for parameter in self.parameters():
            parameter.requires_grad_()


def _width(embedding: nn.Module) -> int:
    """Of what an embedding of timesteps gives."""
    layers = [module for module in embedding.modules() if isinstance(module, nn.Linear)]
    return layers[-1].out_features
