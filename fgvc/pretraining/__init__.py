"""Pre-training of ``vit_pico`` on typefaces that are none of the test faces: ``fgvc pretrain``."""

from fgvc.torchvision_ops import ensure_torchvision_ops

ensure_torchvision_ops()
