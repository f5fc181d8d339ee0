"""Training: the loop, its optimizer and schedule, resume state, runs, the learning-rate choice."""

from fgvc.torchvision_ops import ensure_torchvision_ops

# Before any module of this package imports timm, which imports torchvision.
ensure_torchvision_ops()
