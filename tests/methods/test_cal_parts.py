"""The parts of CAL on tensors: pooling, centres, boxes, crops and drops, and what a training step draws.

Boxes are compared with a plain loop over images; parity with the original code is in test_golden_cal.py.
"""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from fgvc.methods.attention_crop import attended, attention_crops, attention_drops, boxes_of
from fgvc.methods.bilinear import Centers, bilinear_pool
from fgvc.methods.cal import TrainingDraws

SIZE = 64
LABELS = torch.tensor([0, 1, 1])


def pictures(count: int = 3, size: int = SIZE, seed: int = 1) -> Tensor:
    return torch.randn(count, 3, size, size, generator=torch.Generator().manual_seed(seed))


# --- pooling --------------------------------------------------------------------------------------


def test_pooling_follows_its_definition_and_the_index_is_map_times_channels_plus_channel() -> None:
    features, attention = (
        pictures(2)[:, :, :4, :5].repeat(1, 2, 1, 1),
        pictures(2, seed=2)[:, :2, :4, :5].abs(),
    )
    channels = features.shape[1]
    pooled = bilinear_pool(features, attention)
    for b in range(2):
        raw = [
            float((attention[b, m] * features[b, c]).sum() / 20) for m in range(2) for c in range(channels)
        ]
        rooted = torch.tensor([(abs(f) + 1e-6) ** 0.5 * (1 if f > 0 else -1) for f in raw])
        torch.testing.assert_close(pooled[b], rooted / rooted.square().sum().sqrt())


def test_maps_on_a_coarser_grid_are_resized_to_the_features() -> None:
    features, attention = pictures(2)[:, :, :8, :8], pictures(2)[:, :2, :4, :4].abs()
    resized = nn.functional.interpolate(attention, (8, 8), mode="bilinear", align_corners=True)
    torch.testing.assert_close(bilinear_pool(features, attention), bilinear_pool(features, resized))


# --- centres --------------------------------------------------------------------------------------


def test_centres_start_at_zero_and_move_by_the_mean_over_a_classs_images() -> None:
    centers, features = Centers(4, 6, 0.05, "float32"), pictures(3).flatten(1)[:, :6]
    assert not centers.center.any()
    features = nn.functional.normalize(features, dim=1)
    loss = centers(features, LABELS)
    assert loss.item() == pytest.approx(1.0)  # ‖f − 0‖² of unit vectors
    torch.testing.assert_close(centers.center[0], 0.05 * features[0])
    torch.testing.assert_close(centers.center[1], 0.05 * (features[1] + features[2]) / 2)
    assert not centers.center[2:].any()
    before = centers.center.clone()
    again = centers(features, LABELS)
    unit = nn.functional.normalize(before[LABELS], dim=1)
    torch.testing.assert_close(again, (features - unit).square().sum() / 3)
    torch.testing.assert_close(centers.center[0], before[0] + 0.05 * (features[0] - unit[0]))


def test_centres_do_not_depend_on_the_order_of_the_batch() -> None:
    features, classes = pictures(8).flatten(1)[:, :64], torch.tensor([1, 0, 1, 1, 2, 0, 1, 2])
    one, other = Centers(3, 64, 0.05, "float32"), Centers(3, 64, 0.05, "float32")
    one(features, classes)
    other(features.flip(0), classes.flip(0))
    torch.testing.assert_close(one.center, other.center)


def test_the_centre_loss_reaches_the_features_and_not_the_centres() -> None:
    centers, features = Centers(4, 6, 0.05, "float32"), pictures(3).flatten(1)[:, :6].requires_grad_()
    centers(features, LABELS).backward()
    torch.testing.assert_close(features.grad, 2 * features.detach() / 3)
    assert not centers.center.requires_grad and not list(centers.parameters())


# --- boxes, crops, drops --------------------------------------------------------------------------


def looped_box(mask: Tensor, padding: float) -> tuple[int, int, int, int]:
    """As the original writes it, in Python's numbers, and never empty."""
    places = mask.nonzero()
    sides = []
    for dim, size in enumerate(mask.shape):
        low, high = int(places[:, dim].min()), int(places[:, dim].max())
        start = max(int(low - padding * size), 0)
        sides.append((start, max(min(int(high + padding * size), size), start + 1)))
    (y0, y1), (x0, x1) = sides
    return y0, x0, y1, x1


@pytest.mark.parametrize("size", [30, 64, 224])
@pytest.mark.parametrize("padding", [0.0, 0.05, 0.1, 0.3])
def test_boxes_of_a_batch_are_those_of_a_loop(size: int, padding: float) -> None:
    maps = pictures(16, 7)[:, 0].abs() ** 3
    shares = torch.linspace(0.05, 0.95, 16)
    masks = attended(maps, shares, (size, size))
    assert not masks.all() and masks.any(dim=(1, 2)).all()
    found = [tuple(box) for box in boxes_of(masks, padding).tolist()]
    assert found == [looped_box(mask, padding) for mask in masks]


def test_the_box_of_one_hot_cell_is_its_support_and_the_padding() -> None:
    """Cell (2, 3) of 7 × 7 at 225 pixels is at pixel (2·s, 3·s), s = 224/6, half as high s/2 away."""
    maps = torch.zeros(1, 7, 7)
    maps[0, 2, 3] = 1.0
    step, pad = 224 / 6, 0.1 * 225
    y0, x0, y1, x1 = boxes_of(attended(maps, 0.5, (225, 225)), 0.1)[0].tolist()
    for found, cell in (((y0, y1), 2), ((x0, x1), 3)):
        low, high = cell * step - step / 2, cell * step + step / 2
        assert found[0] == pytest.approx(low - pad, abs=1.5) and found[1] == pytest.approx(
            high + pad, abs=1.5
        )


def test_a_map_of_zeros_keeps_the_whole_image_as_crop_and_nothing_as_drop() -> None:
    """Threshold 0: all of the map reaches it. Upstream's behaviour, kept (spec, quirk 8)."""
    images, maps = pictures(2), torch.zeros(2, 4, 4)
    maps[1, 1, 1] = 1.0
    crops, boxes = attention_crops(images, maps, 0.5, 0.1)
    assert boxes[0].tolist() == [0, 0, SIZE, SIZE] and boxes[1].tolist() != [0, 0, SIZE, SIZE]
    torch.testing.assert_close(crops[0], images[0], atol=1e-4, rtol=1e-4)
    drops = attention_drops(images, maps, 0.5)
    assert not drops[0].any() and drops[1].any()


@pytest.mark.parametrize("value", [float("nan"), 0.0])
def test_boxes_without_a_pixel_have_one(value: float) -> None:
    """An empty mask (maps of a run that diverged), and a mask of one pixel without padding."""
    one = torch.zeros(1, SIZE, SIZE, dtype=torch.bool)
    if value == 0.0:
        one[0, 5, 9] = True
        assert boxes_of(one, 0.0).tolist() == [[5, 9, 6, 10]]
    else:
        maps = torch.full((1, 4, 4), value)
        crops, boxes = attention_crops(pictures(1), maps, 0.5, 0.05)
        y0, x0, y1, x1 = boxes[0].tolist()
        assert 0 <= y0 < y1 <= SIZE and 0 <= x0 < x1 <= SIZE and crops.isfinite().all()


def test_a_drop_is_the_image_without_what_the_map_attends_to() -> None:
    images, maps = pictures(), pictures()[:, 0, :4, :4].abs()
    mask = attended(maps, 0.3, (SIZE, SIZE))[:, None].expand_as(images)
    drops = attention_drops(images, maps, 0.3)
    assert not drops[mask].any() and torch.equal(drops[~mask], images[~mask])


# --- what a training step draws -------------------------------------------------------------------


def test_maps_are_drawn_by_the_root_of_their_sums_with_replacement() -> None:
    attention = torch.zeros(20_000, 3, 2, 2)
    attention[:, 0, 0, 0], attention[:, 1, 0, 0] = 1.0, 9.0
    torch.manual_seed(0)
    drawn = TrainingDraws().maps(attention)
    shares = drawn.flatten().bincount(minlength=3) / drawn.numel()
    torch.testing.assert_close(shares, torch.tensor([0.25, 0.75, 0.0]), atol=0.01, rtol=0)
    both = (drawn[:, 0] == drawn[:, 1]).float().mean().item()
    assert both == pytest.approx(0.25**2 + 0.75**2, abs=0.02)


def test_maps_that_are_zero_or_not_finite_are_drawn_from_too() -> None:
    """All zero: each alike. Not finite: the loss says so later; no error here."""
    torch.manual_seed(0)
    drawn = TrainingDraws().maps(torch.zeros(3_000, 3, 2, 2))
    torch.testing.assert_close(
        drawn.flatten().bincount() / drawn.numel(), torch.full((3,), 1 / 3), atol=0.03, rtol=0
    )
    drawn = TrainingDraws().maps(torch.full((50, 3, 2, 2), float("nan")))
    assert ((drawn >= 0) & (drawn < 3)).all()


def test_thresholds_and_counterfactual_maps_are_uniform_and_follow_the_generator() -> None:
    draws, images = TrainingDraws(), torch.zeros(4_000, 1)
    torch.manual_seed(0)
    shares, fake = draws.shares(images, (0.4, 0.6)), draws.counterfactual(torch.zeros(50, 4, 10, 10))
    assert (
        shares.min() >= 0.4 and shares.max() <= 0.6 and shares.mean().item() == pytest.approx(0.5, abs=0.005)
    )
    assert fake.min() >= 0 and fake.max() <= 2 and fake.mean().item() == pytest.approx(1, abs=0.02)
    torch.manual_seed(0)
    assert torch.equal(draws.shares(images, (0.4, 0.6)), shares)
    assert torch.equal(draws.counterfactual(torch.zeros(50, 4, 10, 10)), fake)
