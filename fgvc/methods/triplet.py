"""Batch-hard triplet loss: each image against the farthest of its own class and the nearest of another.

Source: Hermans et al., In Defense of the Triplet Loss for Person Re-Identification, arXiv 1703.07737, §2
(eq. 5, there a sum); as a mean over the anchors that have both: edward62740/SC4001-Project at cb581f1,
losses/loss.py.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from fgvc.backbones.precision import without_autocast


class BatchHardTriplet(nn.Module):
    """The mean over anchors of max(0, d⁺ - d⁻ + margin), with Euclidean distances.

    d⁺ is the largest distance to another image of the anchor's class, d⁻ the smallest to an image of another
    class. Images that lack either are no anchors; without any the loss is 0.

    Args:
        margin: by how much d⁻ should exceed d⁺.
    """

    def __init__(self, margin: float = 1.0) -> None:
        super().__init__()
        self.margin = margin

    def forward(self, embeddings: Tensor, targets: Tensor) -> Tensor:
        """A scalar, in float32 at least.

        Args:
            embeddings: [B, D].
            targets: class ids [B]; of soft targets [B, K] the largest is the class.
        """
        classes = targets if targets.ndim == 1 else targets.argmax(dim=1)
        with without_autocast(embeddings):
            wide = embeddings.to(torch.promote_types(embeddings.dtype, torch.float32))
            # Differences, not products: these lose the small distances that are the hard ones.
            distances = torch.cdist(wide, wide, compute_mode="donot_use_mm_for_euclid_dist")
        same = classes[:, None] == classes
        others = same & ~torch.eye(len(classes), dtype=torch.bool, device=same.device)
        positive = distances.masked_fill(~others, 0.0).amax(dim=1)
        negative = distances.masked_fill(same, torch.inf).amin(dim=1)
        anchors = others.any(dim=1) & ~same.all(dim=1)
        gaps = (positive - negative + self.margin).clamp(min=0)
        return torch.where(anchors, gaps, 0.0).sum() / anchors.sum().clamp(min=1)
