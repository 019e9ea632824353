"""Named settings: how much is spent on the reward, and published values (arXiv 2503.09601, 2309.16653)."""

from __future__ import annotations

from typing import Any, Literal, get_args

from rewardsds.distillation.phrases import NEGATIVE_PROMPT
from rewardsds.tasks.settings import DistillationSettings, EditSettings, TextTo3DSettings, TextToImageSettings

PresetName = Literal["small", "medium", "large", "paper", "dreamgaussian", "texture"]
PRESETS: tuple[PresetName, ...] = get_args(PresetName)

EFFORT: dict[str, tuple[int, str, int]] = {
    "small": (2, "10%", 1),
    "medium": (5, "50%", 8),
    "large": (10, "100%", 15),
}
"""N, K and S of the paper's Figure 9."""


def preset(name: PresetName, task: type[DistillationSettings]) -> dict[str, Any]:
    """The settings that a preset gives a task; all others keep their defaults.

    K is a share of the steps, however many a run has. small, medium, large: N, K and S. paper: what the paper used,
    which is meant for Stable Diffusion (image, edit) and MVDream (3d). dreamgaussian: the first stage of DreamGaussian
    with MVDream, rewarded as in the paper. texture: its second stage, which wants `init`. Both raise ValueError for
    other tasks than 3d.
    """
    if name in ("dreamgaussian", "texture"):
        if task is not TextTo3DSettings:
            raise ValueError(f"the preset {name} is for 3d, not for {task.task}: choose another preset")
        return dict(DREAMGAUSSIAN if name == "dreamgaussian" else TEXTURE)
    if name == "paper":
        return dict(PAPER[task])
    candidates, reward_steps, rollout_steps = EFFORT[name]
    return {
        "candidates": candidates,
        "reward_steps": reward_steps,
        "rollout_steps": rollout_steps,
        "weighting_k": 2 if candidates >= 4 else 1,
    }


_WHOLE_RANGE = {"t_range_start": (0.02, 0.98), "t_range_end": (0.02, 0.98)}

PAPER: dict[type[DistillationSettings], dict[str, Any]] = {
    TextToImageSettings: {
        "steps": 1000,
        "candidates": 10,
        "reward_steps": "100%",
        "rollout_steps": 15,
        "weighting_k": 2,
        "guidance_scale": 100.0,
        "rollout_guidance_scale": 7.5,
        "learning_rate": 0.01,
        **_WHOLE_RANGE,
    },
    EditSettings: {
        "steps": 200,
        "candidates": 5,
        "reward_steps": "100%",
        "rollout_steps": 1,
        "weighting_k": 2,
        "rollout_guidance_scale": 7.5,
        **_WHOLE_RANGE,
    },
    TextTo3DSettings: {
        "steps": 10_000,
        "candidates": 7,
        "reward_steps": "70%",
        "reward": "image-reward",
        "negative_prompt": NEGATIVE_PROMPT,
        "weighting_k": 2,
        "loss": "recon",
        "guidance_scale": 50.0,
        "guidance_rescale": 0.5,
        "rollout_guidance_scale": 7.5,
        "t_range_start": (0.98, 0.98),
        "t_range_end": (0.02, 0.50),
        "t_anneal_steps": 8_000,
        # MVDream's public settings (mvdream-sd21.yaml of threestudio-mvdream): all its regularisers have weight 0
        "backbone": "nerf",
        "camera": {
            "views": 4,
            "groups": (2, 1),
            "resolution": (64, 256),
            "milestones": (5_000,),
            "elevation": (0.0, 30.0),
            "elevation_draw": "mixed",
            "field_of_view": (15.0, 60.0),
            "relative_distance": (0.8, 1.0),
        },
        "background": {"grey": (0.5, 0.5), "tint": 0.5},  # any colour
        "nerf": {
            "levels": 16,
            "features": 2,
            "log2_table": 19,
            "base_resolution": 16,
            "growth": 1.447269237440378,
            "neurons": 64,
            "hidden_layers": 1,
            "density_activation": "softplus",
            "colour_activation": "sigmoid",
            "blob": "linear",
            "blob_scale": 10.0,
            "blob_radius": 0.5,
            # its 512 are along the diagonal of the cube, a step of √3 · 2 / 512; ours along the axis
            "samples_per_ray": 296,
            "evaluation_samples_per_ray": 296,
            "early_stop": 1e-4,
            "occupancy_resolution": 32,
            "occupancy_every": 16,
            "occupancy_decay": 0.95,
            "occupancy_threshold": 0.01,
            "environment": True,
            "environment_neurons": 16,
            "environment_layers": 2,
            "environment_replacement": 0.5,
            "orientation_weight": 0.0,
            "opacity_weight": 0.0,
            "sparsity_weight": 0.0,
            "z_variance_weight": 0.0,
            "grid_learning_rate": 0.01,
            "network_learning_rate": 0.001,
            "environment_learning_rate": 0.001,
            "weight_decay": 0.01,
            "epsilon": 1e-15,
        },
    },
}

DREAMGAUSSIAN: dict[str, Any] = {
    "steps": 500,
    "candidates": 7,
    "reward_steps": "70%",
    "reward": "image-reward",
    "negative_prompt": NEGATIVE_PROMPT,
    "weighting_k": 2,
    "timestep_weight": "uniform",
    "guidance_scale": 100.0,
    "rollout_guidance_scale": 7.5,
    "t_range_start": (0.98, 0.98),
    "t_range_end": (0.02, 0.02),
    "camera": {
        "resolution": (128, 256, 512),
        "milestones": (150, 300),
        "elevation": (-30.0, 30.0),
        "field_of_view": (49.1, 49.1),
        "relative_distance": (1.142, 1.142),  # 2.5 away
    },
    "background": {"grey": (0.0, 1.0), "tint": 0.0},
    "gaussians": {
        "initial_gaussians": 5000,
        "initial_radius": 0.5,
        "initial_scale": 0.7,
        "initial_opacity": 0.1,
        "initial_colour_spread": 0.01,
        "means_learning_rate": 0.01,
        "means_final_learning_rate": 0.0002,
        "means_decay_steps": 300,
        "colours_learning_rate": 0.0113,
        "opacities_learning_rate": 0.05,
        "scales_learning_rate": 0.005,
        "rotations_learning_rate": 0.005,
        "beta2": 0.999,
        "epsilon": 1e-15,
        "densify_start": 0,
        "densify_stop": 3000,
        "densify_every": 50,
        "densify_gradient": 0.04,
        "split_scale": 0.04,
        "max_gaussians": 200_000,
        "prune_start": 0,
        "prune_opacity": 0.01,
        "prune_scale": 0.4,
        "opacity_reset_every": 700,
        "opacity_reset": 0.01,
        "opacity_entropy_weight": 0.0,
        "anisotropy_weight": 0.0,
    },
}
"""The first stage of DreamGaussian (arXiv 2309.16653, section 4.1) as its public code for MVDream has it
(configs/text_mv.yaml, main.py and guidance/mvdream_utils.py of dreamgaussian/dreamgaussian at 69a3c70).

The figures are in our terms: the means' rates are ten times the configuration's, as its `spatial_lr_scale` is 10; a
colour's rate is that of a logit at mid-grey which moves the colour as fast as a spherical harmonic of degree 0 does;
the threshold of gradients is four times its, as its loss is a mean over four views and ours a sum; the ball's spacing
times 0.7 is the distance to the three nearest neighbours; split and pruned are what is larger than 0.01 and 0.1 times
its extent, 4, so that all are cloned at first. Its pruning by screen size never takes effect, and is left out.

What differs: backgrounds are grey, not black or white alone. What leaves `bounds` is removed. Its views are at whole
degrees.
"""

TEXTURE: dict[str, Any] = {
    "backbone": "mesh",
    "loss": "refine",
    "steps": 50,
    "rollout_steps": 4,
    "t_range_start": (0.20, 0.20),
    "t_range_end": (0.05, 0.05),
    # as fine as pictures of 64 pixels show a texture: a finer one would be sharpened in single dots
    "mesh": {"texture_size": 256, "supersampling": 4},
}
"""DreamGaussian's second stage (arXiv 2309.16653, section 3.3): noise is added up to a fifth of the timesteps, taken
out in several steps, and the texture follows. The noise falls as it does in DreamGaussian's public code."""
