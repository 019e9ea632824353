"""Multi-view attention and the camera embedding."""

import math
from typing import Any

import torch
from diffusers.models.attention_processor import Attention, AttnProcessor2_0

from rewardsds.priors.multiview import MultiViewAttnProcessor, camera_embedding
from rewardsds.scenes.cameras import orbit


def attention() -> Any:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return Attention(query_dim=8, cross_attention_dim=None, heads=2, dim_head=4).requires_grad_(False)


def states(items: int, views: int, length: int = 5) -> torch.Tensor:
    return torch.randn(items * views, length, 8, generator=torch.Generator().manual_seed(1))


def test_one_view_is_the_stock_processor():
    layer, x = attention(), states(3, 1)
    layer.set_processor(AttnProcessor2_0())
    expected = layer(x)
    layer.set_processor(MultiViewAttnProcessor())
    assert torch.equal(layer(x), expected)
    assert torch.equal(layer(x, views=1), expected)


def test_four_views_attend_to_the_tokens_of_all_four():
    """Softmax attention written out, over the 4·L tokens of each item."""
    layer, x = attention(), states(2, 4)
    layer.set_processor(MultiViewAttnProcessor())
    out = layer(x, views=4)
    for item in range(2):
        tokens = x[4 * item : 4 * item + 4].reshape(20, 8)
        q, k, v = (proj(tokens).reshape(20, 2, 4) for proj in (layer.to_q, layer.to_k, layer.to_v))
        weights = torch.softmax(torch.einsum("qhc,khc->hqk", q, k) / math.sqrt(4), dim=-1)
        mixed = torch.einsum("hqk,khc->qhc", weights, v).reshape(20, 8)
        torch.testing.assert_close(out[4 * item : 4 * item + 4].reshape(20, 8), layer.to_out[0](mixed))


def test_cross_attention_stays_per_view():
    layer, x = attention(), states(1, 4)
    text = torch.randn(4, 3, 8, generator=torch.Generator().manual_seed(2))
    layer.set_processor(MultiViewAttnProcessor())
    joint = layer(x, encoder_hidden_states=text, views=4)
    apart = torch.cat([layer(x[v : v + 1], encoder_hidden_states=text[v : v + 1]) for v in range(4)])
    torch.testing.assert_close(joint, apart)


def test_camera_embedding_by_hand():
    """A camera on +Y (azimuth 90°), 2.5 away, level: it looks along −Y, its right is −X, its up is +Z."""
    camera = orbit(torch.tensor(math.pi / 2), torch.tensor(0.0), torch.tensor(2.5), torch.tensor(0.7))
    embedding = camera_embedding(camera.camera_to_world)
    expected = [-1, 0, 0, 0, 0, 0, 1, 1, 0, 1, 0, 0, 0, 0, 0, 1]
    torch.testing.assert_close(embedding, torch.tensor(expected, dtype=torch.float32), rtol=0, atol=1e-6)


def test_camera_embedding_does_not_change_its_input_and_takes_zeros():
    poses = torch.arange(32.0).reshape(2, 4, 4)
    before = poses.clone()
    embedding = camera_embedding(poses)
    assert embedding.shape == (2, 16)
    assert torch.equal(poses, before)
    torch.testing.assert_close(embedding[:, [3, 7, 11]].norm(dim=1), torch.ones(2))
    assert torch.equal(camera_embedding(torch.zeros(1, 4, 4)), torch.zeros(1, 16))
