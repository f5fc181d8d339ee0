"""What is frozen: its mode in training, and checkpoints that hold only the rest."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from fgvc import create_model
from fgvc.backbones.blocks import run_block
from fgvc.errors import FgvcError
from fgvc.methods.checkpoints import load_checkpoint, own_names, save_checkpoint

SMALL = {"backbone": "vit_pico_patch16_224", "num_classes": 5, "image_size": 32}
DIGEST = "a" * 64


def small(seed: int = 0, **more: float) -> nn.Module:
    torch.manual_seed(seed)
    return create_model("vit", **SMALL, **more)  # type: ignore[arg-type]


def save_part(model: nn.Module, path: Path) -> None:
    state = model.state_dict()
    save_checkpoint({name: state[name] for name in own_names(model)}, path, "r", DIGEST)


def images() -> Tensor:
    return torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(1))


def test_a_block_with_nothing_beside_it_is_the_block() -> None:
    model = create_model("vit", **SMALL).eval()  # type: ignore[arg-type]
    block = model.backbone.blocks[1]
    tokens = torch.randn(2, 5, model.backbone.width)
    assert torch.equal(run_block(block, tokens), block(tokens))


def test_what_stands_beside_a_branch_reads_the_normalised_tokens() -> None:
    model = create_model("vit", **SMALL).eval()  # type: ignore[arg-type]
    block = model.backbone.blocks[0]
    x = torch.randn(2, 5, model.backbone.width)
    found = run_block(block, x, beside_attention=lambda z: 2 * z, beside_mlp=lambda z: 3 * z)
    x = x + block.attn(block.norm1(x)) + 2 * block.norm1(x)
    x = x + block.mlp(block.norm2(x)) + 3 * block.norm2(x)
    torch.testing.assert_close(found, x)


def test_frozen_parts_stay_in_evaluation_mode() -> None:
    """So that dropout in a frozen block does not act; what trains is in training mode."""
    model = small(dropout=0.5)
    model.set_trainable(["head.*", "backbone.vit.cls_token"])
    model.train()
    assert not model.backbone.blocks.training and not model.backbone.blocks[0].mlp.drop1.training
    assert model.head.training and model.training
    torch.testing.assert_close(model(images()).logits, model(images()).logits, rtol=0, atol=0)


def test_frozen_parts_may_train_their_dropout_where_asked() -> None:
    model = small(dropout=0.5)
    model.set_trainable(["head.*"])
    nn.init.normal_(model.head.weight)
    model.frozen_eval = False
    model.train()
    assert model.backbone.blocks[0].mlp.drop1.training
    assert not torch.equal(model(images()).logits, model(images()).logits)


def test_a_checkpoint_holds_what_trains_and_no_more(tmp_path: Path) -> None:
    model = small()
    model.set_trainable(["head.*", "backbone.vit.cls_token"])
    assert set(own_names(model)) == {"head.weight", "head.bias", "backbone.vit.cls_token"}
    nn.init.normal_(model.head.weight)
    save_part(model, tmp_path / "model.safetensors")
    other = small()
    other.set_trainable(["head.*", "backbone.vit.cls_token"])
    load_checkpoint(other, tmp_path / "model.safetensors", DIGEST)
    assert torch.equal(other.eval()(images()).logits, model.eval()(images()).logits)
    assert (tmp_path / "model.safetensors").stat().st_size < 10_000


def test_a_batch_norm_that_trains_brings_its_statistics() -> None:
    model = create_model("cnn", backbone="test_efficientnet", num_classes=5, image_size=32)
    model.set_trainable(["*bn1*", "head.*"])
    names = set(own_names(model))
    assert any(name.endswith("bn1.running_mean") for name in names)
    assert not any("bn2.running_mean" in name for name in names)


@pytest.mark.parametrize(
    ("train", "digest", "said"),
    [
        (["head.*"], "b" * 64, f"digest {DIGEST}, the weights here have {'b' * 64}"),
        (["head.*", "backbone.vit.cls_token"], DIGEST, "lacking: backbone.vit.cls_token"),
    ],
)
def test_a_checkpoint_of_something_else_is_refused(
    tmp_path: Path, train: list[str], digest: str, said: str
) -> None:
    model = small()
    model.set_trainable(["head.*"])
    save_part(model, tmp_path / "model.safetensors")
    other = small()
    other.set_trainable(train)
    with pytest.raises(FgvcError, match=said):
        load_checkpoint(other, tmp_path / "model.safetensors", digest)


def test_a_checkpoint_of_the_head_does_not_pass_for_one_of_less(tmp_path: Path) -> None:
    model = small()
    model.set_trainable(["head.*", "backbone.vit.cls_token"])
    save_part(model, tmp_path / "model.safetensors")
    model.set_trainable(["head.*"])
    with pytest.raises(FgvcError, match=r"not known: backbone\.vit\.cls_token"):
        load_checkpoint(model, tmp_path / "model.safetensors", DIGEST)


def test_what_is_frozen_beside_the_backbone_is_in_the_checkpoint(tmp_path: Path) -> None:
    """The weights file has it not: another model would begin with other values."""
    model, other = small(), small(seed=1)
    nn.init.normal_(model.head.weight)
    for one in (model, other):
        one.backbone.load_state_dict(model.backbone.state_dict())
        one.set_trainable(["head.bias"])
    save_part(model, tmp_path / "model.safetensors")
    load_checkpoint(other, tmp_path / "model.safetensors", DIGEST)
    assert torch.equal(other.eval()(images()).logits, model.eval()(images()).logits)


def test_a_damaged_checkpoint_is_one_clear_error(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes(b"\x10" + b"\0" * 20)
    with pytest.raises(FgvcError, match="damaged"):
        load_checkpoint(small(), tmp_path / "model.safetensors", DIGEST)
