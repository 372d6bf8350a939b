"""The short-chunk CNN and the patch transformer against naive re-implementations of their parts."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from torch.nn import functional

from tonnetz.errors import UserError
from tonnetz.models import PatchTransformer, ShortChunk, length_mask
from tonnetz.models.patch_transformer import Block
from tonnetz.models.short_chunk import Residual


def test_short_chunk_has_the_layers_of_the_paper() -> None:
    network = ShortChunk(1, 128)
    widths = [1, 128, 128, 256, 256, 256, 256, 512]
    assert [block.leave.conv.out_channels for block in network.blocks] == widths[1:]
    expected = sum(9 * o * (2 * i + o) + 6 * o for i, o in pairwise(widths)) + 2 * 128
    assert sum(p.numel() for p in network.parameters()) == expected == 11_809_792
    with torch.no_grad():
        stages = {name: h for name, h, _ in network.eval().stages(torch.randn(1, 1, 128, 230), None)}
    assert stages["block7"].shape == (1, 512, 1, 2)
    assert stages["output"].shape == (1, 2, 512)
    assert (stages["output"] == stages["block7"].amax(2).transpose(1, 2)).all()


def test_short_chunk_block_equals_its_formula() -> None:
    torch.manual_seed(0)
    block, x = Residual(3, 5).eval(), torch.randn(2, 3, 8, 9)
    for part in (block.enter, block.leave, block.skip):
        part.norm.running_mean.normal_()
        part.norm.running_var.uniform_(0.5, 2)

    def layer(part, h, stride):
        h = functional.conv2d(h, part.conv.weight, None, stride, 1)
        return functional.batch_norm(h, part.norm.running_mean, part.norm.running_var)

    expected = (layer(block.leave, layer(block.enter, x, 2).relu(), 1) + layer(block.skip, x, 2)).relu()
    torch.testing.assert_close(block(x, None), expected, rtol=1e-4, atol=1e-5)


def network(**sizes) -> PatchTransformer:
    torch.manual_seed(0)
    return PatchTransformer(2, 10, **{"patch": (4, 6), "dim": 12, "depth": 2, "heads": 3, "hidden": 20, **sizes}).eval()


def test_patches_are_tiles_of_the_normalised_input() -> None:
    model, x = network(), torch.randn(3, 2, 10, 20)
    model.norm.norm.running_mean.normal_()
    patches = model.patches(x)
    assert patches.shape == (3, 4 * 3, 2 * 4 * 6)
    normal = functional.pad(model.norm(x), (0, 4, 0, 2))
    for column in range(4):
        for row in range(3):
            tile = normal[:, :, 4 * row : 4 * row + 4, 6 * column : 6 * column + 6]
            assert torch.equal(patches[:, 3 * column + row], tile.flatten(1))


def encoded(model: PatchTransformer, *given: torch.Tensor, **keywords: torch.Tensor) -> torch.Tensor:
    """The output of all steps."""
    *_, (_, h) = model.steps(*given, **keywords)
    return h


def test_encode_all_is_forward() -> None:
    model, x = network(), torch.randn(3, 2, 10, 20)
    mask = length_mask(torch.tensor([20, 13, 1]), 20)
    h = encoded(model, model.patches(x, mask), valid=model.valid(mask))
    assert h.shape == (3, 12, 12)
    torch.testing.assert_close(h.unflatten(1, (4, 3)).mean(2), model(x, mask))
    assert model.valid(mask).sum(1).tolist() == [12, 9, 3]


def test_encode_sees_what_is_kept_and_nothing_else() -> None:
    model, patches = network(), torch.randn(2, 12, 48)
    keep = torch.tensor([[7, 0, 3], [1, 11, 4]])
    h = encoded(model, patches, keep)
    assert h.shape == (2, 3, 12)
    hidden = torch.ones(2, 12, 1).scatter(1, keep[..., None], 0).bool()
    torch.testing.assert_close(encoded(model, patches.masked_fill(hidden, torch.nan), keep), h)
    # the same as hiding the others from attention
    whole = encoded(model, patches, valid=~hidden[..., 0])
    torch.testing.assert_close(whole.gather(1, keep[..., None].expand(-1, -1, 12)), h, rtol=1e-4, atol=1e-5)
    order = torch.tensor([2, 0, 1])
    torch.testing.assert_close(encoded(model, patches, keep[:, order]), h[:, order], rtol=1e-4, atol=1e-5)
    assert (encoded(model, patches, (keep + 1) % 12) - h).abs().max() > 1e-2


def test_positions_tell_rows_and_columns_apart() -> None:
    model = network()
    positions = model.positions(12)
    assert positions.shape == (12, 12)
    assert torch.cdist(positions, positions).add(torch.eye(12)).min() > 1e-3
    assert torch.equal(model.positions(30)[:12], positions)


def test_block_equals_a_naive_loop() -> None:
    torch.manual_seed(0)
    block, x, valid = Block(12, 3, 20, 0.0), torch.randn(2, 5, 12), 4
    result = block(x, (torch.arange(5) < valid).expand(2, 5))
    q, k, v = block.project(block.norm_attention(x)).split(12, -1)
    attended = torch.zeros(2, 5, 12)
    for example in range(2):
        for head in range(3):
            part = slice(4 * head, 4 * head + 4)
            weights = (q[example, :, part] @ k[example, :valid, part].T / 2).softmax(-1)
            attended[example, :, part] = weights @ v[example, :valid, part]
    h = x + block.attended(attended)
    torch.testing.assert_close(result, h + block.after(block.norm_after(h)), rtol=1e-4, atol=1e-5)


def test_mistakes() -> None:
    for wrong, text in (({"heads": 5}, "dim=12 heads=5"), ({"patch": (4,)}, "model.patch"), ({"dim": 9}, "dim=9")):
        with pytest.raises(UserError, match=text):
            network(**wrong)


def test_hidden_patches_are_not_looked_at_in_training():
    torch.manual_seed(0)
    model = PatchTransformer(1, 8, patch=(4, 4), dim=12, depth=2, heads=2, hidden=24, visible=0.5)
    x = torch.randn(3, 1, 8, 24)  # 6 columns of 2 patches
    mask = torch.arange(24).expand(3, -1) < torch.tensor([24, 24, 8])[:, None]
    seen = {}
    draw = model.drawn
    model.drawn = lambda patches, valid: seen.setdefault("keep", draw(patches, valid))
    h = {name: value for name, value, _ in model.stages(x, mask)}["output"]
    assert h.shape == (3, 6, 12)
    keep = seen["keep"]
    assert keep.shape == (3, 6)
    assert (keep[2, :4] < 4).all(), "what is there comes before padding"
    patches = model.patches(x, mask)
    valid = model.valid(mask)
    vectors = encoded(model, patches, keep, valid)
    for b in range(3):
        for column in range(6):
            own = [vectors[b, k] for k in range(6) if int(keep[b, k]) // 2 == column]
            there = vectors[b][valid[b, keep[b]]]
            expected = torch.stack(own).mean(0) if own else there.mean(0)
            torch.testing.assert_close(h[b, column], expected, rtol=1e-4, atol=1e-5)
    model.eval()
    assert not torch.allclose({name: value for name, value, _ in model.stages(x, mask)}["output"], h)
    with pytest.raises(UserError, match="visible=0"):
        PatchTransformer(1, 8, visible=0.0)
