"""Backbones: timm models seen as tokens (ViTs) or as feature maps (CNNs), and the registry of weights."""

from fgvc.torchvision_ops import ensure_torchvision_ops

# Before any module of this package imports timm, which imports torchvision.
ensure_torchvision_ops()
