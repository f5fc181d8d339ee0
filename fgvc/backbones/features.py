"""Feature maps of timm CNNs (and of anything else in timm that has ``forward_features``)."""

from __future__ import annotations

from timm.models import VisionTransformer
from torch import Tensor, nn

from fgvc.backbones.timm_models import base_name, build_timm
from fgvc.errors import FgvcError


class FeatureBackbone(nn.Module):
    """A timm CNN without its classifier.

    Args:
        backbone: timm name.
        stochastic_depth: drop rate of residual branches, growing linearly with depth (timm's rule), where
            the architecture has it.

    Raises FgvcError for a ViT, and for a name that timm does not know.
    """

    def __init__(self, backbone: str, *, stochastic_depth: float = 0.0) -> None:
        super().__init__()
        name = base_name(backbone)
        kwargs = {"drop_path_rate": stochastic_depth} if stochastic_depth > 0 else {}
        self.cnn = build_timm(name, **kwargs)
        if isinstance(self.cnn, VisionTransformer):
            raise FgvcError(
                f"the backbone '{backbone}' is a ViT, not a CNN",
                cure="use the method class 'vit', or a CNN backbone",
            )
        self.width: int = int(self.cnn.num_features)  # type: ignore[arg-type]
        self.pooled_width: int = getattr(self.cnn, "head_hidden_size", None) or self.width

    def forward(self, images: Tensor) -> Tensor:
        """The last feature map: [B, 3, S, S] → [B, width, h, w]."""
        return self.cnn.forward_features(images)  # type: ignore[no-any-return,operator]

    def pool(self, features: Tensor) -> Tensor:
        """The model's own pooling and what follows it before the classifier: [B, pooled_width]."""
        return self.cnn.forward_head(features, pre_logits=True)  # type: ignore[no-any-return,operator]
