"""What IELT does, option by option, on small models; parity with the original: test_golden_ielt.py."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from startkit import ProjectFactory, start_from
from torch import Tensor
from torch.nn.functional import cross_entropy

from fgvc.backbones.timm_models import parameter_count
from fgvc.checkpoints import from_upstream
from fgvc.errors import FgvcError
from fgvc.methods import ModelSpec
from fgvc.methods.build import create_model
from fgvc.methods.checkpoints import load_checkpoint
from fgvc.methods.ielt import IELT, IELTOptions
from fgvc.methods.voting import DynamicSelection, Enhancement, ranked, votes

PICO = "vit_pico_patch16_224"
TINY = {"embed_dim": 32, "depth": 4, "num_heads": 4}
FEW = {"vote_perhead": 6, "total_num": 24, "key_tokens": 6, "select_init": "uniform"}


def tiny(image_size: int = 96, shape: dict[str, Any] | None = None, **options: Any) -> IELT:
    torch.manual_seed(0)
    spec = ModelSpec(PICO, 5, image_size, shape={**TINY, **(shape or {})})
    model = IELT(spec, IELTOptions(**{**FEW, "head_init": "default", **options})).eval()
    model.weights_loaded()
    with torch.no_grad():  # attention far from uniform, so that no rank hangs on rounding
        for block in model.backbone.blocks:
            block.attn.qkv.weight.mul_(20)
    return model


def pictures(count: int = 3, size: int = 96, seed: int = 1) -> Tensor:
    return torch.randn(count, 3, size, size, generator=torch.Generator().manual_seed(seed))


LABELS = torch.tensor([0, 1, 2])

# --- votes ----------------------------------------------------------------------------------------


def test_each_head_votes_for_its_patches() -> None:
    rows = torch.rand(2, 3, 16, generator=torch.Generator().manual_seed(0))
    counts = votes(rows, 5)
    for b in range(2):
        tally = [0] * 16
        for head in rows[b]:
            for patch in sorted(range(16), key=lambda i: -head[i])[:5]:
                tally[patch] += 1
        assert counts[b].tolist() == tally
    assert counts.sum(dim=1).tolist() == [15, 15]


def test_of_equal_scores_the_first_patches_win() -> None:
    scores = torch.tensor([[1.0, 3.0, 0.0, 3.0, 1.0, 3.0]])
    assert ranked(scores, 5).tolist() == [[1, 3, 5, 0, 4]]
    assert ranked(torch.zeros(1, 784), 16).tolist() == [list(range(16))]


def test_a_vote_spreads_to_its_neighbours() -> None:
    counts = torch.zeros(1, 25)
    counts[0, 12] = 1
    spread = Enhancement()(counts, (5, 5))[0].view(5, 5)
    assert spread[1:4, 1:4].tolist() == [[1, 2, 1], [2, 4, 2], [1, 2, 1]]
    assert spread.sum() == 16
    counts = torch.zeros(1, 25)
    counts[0, 0] = 3
    assert Enhancement()(counts, (5, 5))[0].view(5, 5)[:2, :2].tolist() == [[12, 6], [6, 3]]


def test_a_learnable_kernel_is_part_of_the_state() -> None:
    fixed, learnable = tiny(), tiny(kernel="learnable")
    names = {"enhancement.convs.0.weight", "enhancement.convs.0.bias"}
    assert set(learnable.state_dict()) - set(fixed.state_dict()) == names
    learnable.load_state_dict(fixed.state_dict(), strict=False)
    with torch.no_grad():
        conv = learnable.enhancement.convs[0]
        conv.weight.copy_(torch.tensor([[1.0, 2, 1], [2, 4, 2], [1, 2, 1]]))
        conv.bias.zero_()
        assert torch.equal(learnable(pictures()).logits, fixed(pictures()).logits)


# --- one pass -------------------------------------------------------------------------------------


def test_the_later_blocks_see_the_tokens_that_were_voted_for() -> None:
    model = tiny()
    *trunk, refine = model.backbone.blocks
    after: list[Tensor] = []
    given: list[Tensor] = []
    refined: list[Tensor] = []
    for block in trunk:
        block.register_forward_hook(lambda _m, _in, out: after.append(out))
    for block in (refine, model.key_layer):
        block.register_forward_hook(lambda _m, taken, _out: given.append(taken[0]))
    model.backbone.norm.register_forward_hook(lambda _m, _in, out: refined.append(out))
    with torch.inference_mode():
        output = model(pictures())
    for b in range(3):
        rows = [after[-1][b, 0]]
        for layer, part in enumerate(output.selected["patches"][b].split(model.selection.sizes())):
            rows += [after[layer][b, 1 + patch] for patch in part.tolist()]
            best = sorted(range(36), key=lambda i: (-output.masks[f"votes.{layer}"][b, i], i))
            assert part.tolist() == best[: len(part)]
        assert torch.equal(given[0][b], torch.stack(rows))
        kept = [refined[0][b, 1 + place] for place in output.selected["key"][b].tolist()]
        assert torch.equal(given[1][b], torch.stack([after[-1][b, 0], *kept]))


def test_the_assist_logits_weigh_the_heads_rows() -> None:
    model = tiny()
    with torch.inference_mode():
        output = model(pictures())
    complement = output.aux_logits["complement"]
    expected = complement.softmax(-1) * model.head.weight.sum(1)
    torch.testing.assert_close(output.aux_logits["assist"], expected)
    seen: list[Tensor] = []
    model.head.register_forward_hook(lambda _m, _in, out: seen.append(out))
    with torch.inference_mode():
        torch.testing.assert_close(model(pictures()).logits, seen[1] + expected)
    assert torch.equal(seen[0], complement)


def test_registers_are_neither_candidates_nor_contributed() -> None:
    model = tiny(shape={"reg_tokens": 4})
    with torch.inference_mode():
        output = model(pictures())
    assert model.backbone.num_prefix == 5 and output.masks["selected"].shape == (3, 36)
    assert output.masks["selected"].sum(dim=1).tolist() == [24, 24, 24]


def test_the_loss_weighs_logits_and_complement() -> None:
    model = tiny(complement_weight=0.3)
    output = model(pictures())
    terms = model.loss(output, LABELS)
    expected = 0.7 * cross_entropy(output.logits, LABELS)
    expected = expected + 0.3 * cross_entropy(output.aux_logits["complement"], LABELS)
    torch.testing.assert_close(terms["total"], expected)


# --- dynamic selection ----------------------------------------------------------------------------


def test_the_published_numbers_of_tokens() -> None:
    start = DynamicSelection(11, 126, "ushape", 1e-3, 0, "actual")
    assert start.sizes() == [16, 14, 12, 10, 8, 6, 8, 10, 12, 14, 16]
    assert DynamicSelection(11, 126, "uniform", 1e-3, 0, "actual").sizes() == [11] * 11


def test_shares_follow_the_last_vote_and_sum_to_one() -> None:
    selection = DynamicSelection(3, 30, "uniform", 0.1, 2, "actual")
    counts = torch.tensor([6.0, 2.0, 0.0])
    for _ in range(2):
        selection.observe(counts)
    assert selection.rates.tolist() == pytest.approx([1 / 3] * 3)
    selection.observe(counts)
    expected = [0.9 / 3 + 0.1 * share for share in (0.75, 0.25, 0.0)]
    assert selection.rates.tolist() == pytest.approx(expected) and selection.steps == 3
    for _ in range(50):
        selection.observe(counts)
        assert selection.numbers().sum().item() == pytest.approx(30)
    assert selection.sizes() == [22, 8, 0]
    before = selection.rates.clone()
    selection.observe(torch.zeros(3))
    assert torch.equal(selection.rates, before)


def test_a_place_tells_its_layer_by_the_actual_numbers() -> None:
    places = torch.tensor([[0, 3, 4, 9, -1, 11]])
    actual = DynamicSelection(3, 10, "uniform", 0.1, 0, "actual")
    assert actual.sizes() == [3, 3, 3]
    assert actual.layers_of(places, [4, 4, 4]).tolist() == [[3, 1, 2]]
    upstream = DynamicSelection(3, 10, "uniform", 0.1, 0, "upstream")  # ends at 3.33, 6.67, 10
    assert upstream.layers_of(places, [4, 4, 4]).tolist() == [[3, 1, 1]]


def test_warm_up_may_be_counted_in_epochs() -> None:
    """In passes of the engine's epochs; before they are known nothing moves."""
    model = tiny(dynamic_warm_epochs=1.5, dynamic_rate=0.5).train()
    before = model.selection.rates.clone()

    def steps(count: int) -> bool:
        """Whether the shares have moved."""
        for _ in range(count):
            model.loss(model(pictures()), LABELS)
        return not torch.equal(model.selection.rates, before)

    assert not steps(2)
    model.begin_training(passes_per_epoch=4)
    assert not steps(4)
    again = tiny(dynamic_warm_epochs=1.5, dynamic_rate=0.5).train()
    again.begin_training(passes_per_epoch=4)
    again.load_state_dict(model.state_dict())
    model = again  # resumed: the steps done are in its state
    assert steps(1)


def test_only_training_moves_the_shares() -> None:
    model = tiny(dynamic_warm_steps=0, dynamic_rate=0.5)
    before = model.selection.rates.clone()
    model.loss(model(pictures()), LABELS)
    assert torch.equal(model.selection.rates, before)
    output = model.train()(pictures())
    assert torch.equal(model.selection.rates, before)
    model.loss(output, LABELS)
    counts = output.embeddings["key_layers"].sum(dim=0)
    assert counts.sum() == 3 * 6
    torch.testing.assert_close(model.selection.rates, 0.5 * before + 0.5 * counts / 18)


def test_a_reloaded_model_predicts_exactly_the_same(tmp_path: Path) -> None:
    """Also after its numbers of tokens have moved, which a model without them would not know."""
    model = tiny(dynamic_warm_steps=0, dynamic_rate=0.5).train()
    for seed in range(4):
        model.loss(model(pictures(seed=seed)), LABELS)
    model.eval()
    path = tmp_path / "model.safetensors"
    safetensors.torch.save_file(model.state_dict(), path)
    again = tiny(dynamic_warm_steps=0, dynamic_rate=0.5)
    assert again.selection.sizes() != model.selection.sizes()
    with torch.inference_mode():
        logits = model(pictures(7)).logits
        load_checkpoint(again, path)
        assert torch.equal(again(pictures(7)).logits, logits)
        again.selection.rates.fill_(1 / 3)
        assert not torch.allclose(again(pictures(7)).logits, logits)


# --- where it starts ------------------------------------------------------------------------------


def test_what_is_pretrained_and_what_is_drawn(project_factory: ProjectFactory) -> None:
    for init in ("random", "pretrained"):
        model = IELT(ModelSpec(PICO, 5, 96, shape=TINY), IELTOptions(**FEW, last_block_init=init))
        state = {n: torch.full_like(t, 0.5) for n, t in model.backbone.vit.state_dict().items()}
        start_from(model, state, project_factory(name=init))
        loaded = {n for n, p in model.named_parameters() if (p == 0.5).all()}
        trunk = {n for n, _ in model.named_parameters() if n.startswith("backbone.")}
        later = {n for n in trunk if n.startswith(("backbone.vit.blocks.3.", "backbone.vit.norm."))}
        key = {n for n, _ in model.named_parameters() if n.startswith("key_")}
        assert loaded == (trunk - later if init == "random" else trunk | key)


def test_the_size_of_the_paper() -> None:
    """ViT-B/16 at 448: 93.4 to 93.8 million parameters with the heads of its datasets."""
    with torch.device("meta"):
        counts = [
            parameter_count(
                create_model("ielt", backbone="vit_base_patch16_224", num_classes=classes, image_size=448)
            )
            for classes in (37, 555)
        ]
    assert [round(count / 1e6, 1) for count in counts] == [93.4, 93.8]


# --- errors ---------------------------------------------------------------------------------------


def test_impossible_options_are_refused() -> None:
    with pytest.raises(FgvcError, match="36 patches"):
        tiny(vote_perhead=40, total_num=60)
    with pytest.raises(ValueError, match="total_num=20 tokens"):
        IELTOptions(total_num=20)
    with pytest.raises(ValueError, match="complement_weight"):
        IELTOptions(complement_weight=1.5)
    with pytest.raises(FgvcError, match="'test_vit3' has none"):
        create_model("ielt", backbone="test_vit3", num_classes=2, image_size=64, vote_perhead=4)


def test_numbers_of_a_training_log_are_taken(shared: Path) -> None:
    state = safetensors.torch.load_file(shared / "golden" / "ielt_a.safetensors")
    state = {n.removeprefix("state."): t for n, t in state.items() if n.startswith("state.")}
    numbers = [28.6, 11.5, 18.1, 24.3, 20.5, 2.4, 1.2, 1.2, 1.9, 2.6, 13.6]
    model = from_upstream("ielt", state, {"num_heads": 2, "select_num": numbers})
    assert isinstance(model, IELT) and model.selection.sizes() == [29, 12, 18, 24, 20, 2, 1, 1, 2, 3, 14]
    with pytest.raises(FgvcError, match="select_num has 2 numbers for 11 layers"):
        from_upstream("ielt", state, {"num_heads": 2, "select_num": [1, 2]})
