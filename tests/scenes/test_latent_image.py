import pytest
import torch

from rewardsds.scenes.image import LatentImageScene, LatentImageSettings


def generators(*seeds: int) -> list[torch.Generator]:
    return [torch.Generator().manual_seed(seed) for seed in seeds]


def test_items_start_from_their_own_noise():
    """Three items in one scene start as three scenes of one item do."""
    scene = LatentImageScene((4, 8, 8), generators(3, 1, 2))
    assert scene.batch == 3
    assert scene.latents.shape == (3, 1, 4, 8, 8)
    for item, seed in enumerate((3, 1, 2)):
        single = LatentImageScene((4, 8, 8), generators(seed))
        assert torch.equal(scene.latents[item], single.latents[0])


def test_init_scale_scales_the_noise():
    full = LatentImageScene((4, 8, 8), generators(0))
    half = LatentImageScene((4, 8, 8), generators(0), LatentImageSettings(init_scale=0.5))
    torch.testing.assert_close(half.latents, full.latents * 0.5)


def test_render_is_the_parameter_and_learns():
    scene = LatentImageScene((4, 8, 8), generators(0), LatentImageSettings(learning_rate=0.5))
    optimizer = torch.optim.Adam(scene.parameter_groups())
    assert scene.sample_cameras(generators(0), 0) is None
    rendering = scene.render(None)
    assert rendering.images is None
    assert rendering.latents is not None
    before = scene.latents.detach().clone()
    rendering.latents.sum().backward()
    scene.before_step(0, optimizer)
    optimizer.step()
    scene.after_step(0, optimizer, generators(0))
    torch.testing.assert_close(scene.latents, before - 0.5)  # Adam's first step is the learning rate
    assert scene.regularisation(rendering) is None


def test_state_round_trip_and_wrong_shape():
    a, b = LatentImageScene((4, 8, 8), generators(0)), LatentImageScene((4, 8, 8), generators(1))
    b.load_state_dict({name: tensor.clone() for name, tensor in a.state_dict().items()})
    assert torch.equal(a.latents, b.latents)
    with pytest.raises(ValueError, match="expected"):
        LatentImageScene((4, 4, 4), generators(0)).load_state_dict(a.state_dict())
    with pytest.raises(ValueError, match="shape none"):
        a.load_state_dict({})


def test_no_generators():
    with pytest.raises(ValueError, match="one generator per item"):
        LatentImageScene((4, 8, 8), [])
