"""Features of a frozen backbone computed once: the same training, and refused wherever it would not be."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pandas as pd
import pytest
import safetensors.torch
import torch
from trainkit import EPOCHS, WEIGHTS, Fate, made, run_dir, spec_of, train, variant, write_yaml

from fgvc.backbones.tokens import TokenBackbone
from fgvc.config.project import Project
from fgvc.errors import FgvcError
from fgvc.training.run import train_run

Fresh = Callable[..., Project]
PROBE: dict[str, Any] = {"weights": WEIGHTS, "train": ["head.*"], "augmentation": "none", "epochs": 6}


def with_probes(project: Project, **keys: Any) -> Project:
    """Variants ``steps`` and ``once`` that differ in when features are computed."""
    for name in ("each_step", "once"):
        content = variant(**{**PROBE, **keys, "frozen_features": name})
        write_yaml(project.root / f"params/methods/{name}.yaml", content)
    return Project(project.root)


@pytest.mark.parametrize(
    "keys",
    [
        {},
        {"options": {"pool": "bilinear", "projection": 4}, "train": ["head.*", "projection.*"]},
        {"method": "ifa", "accumulate": 2},
        {"method": "cnn", "backbone": "test_efficientnet", "weights": None, "dropout": 0.2},
    ],
)
def test_it_is_the_same_training(project: Project, keys: dict[str, Any]) -> None:
    """Up to the rounding of other batches: features are computed for more images at a time."""
    with_probes(project, **keys)
    histories, weights, answers = [], [], []
    for name in ("each_step", "once"):
        made(project, name)
        folder = run_dir(project, name)
        histories.append(pd.read_csv(folder / "history.csv"))
        weights.append(safetensors.torch.load_file(folder / "model.safetensors"))
        answers.append(pd.read_parquet(folder / "predictions.parquet"))
    assert histories[0]["train_loss"].nunique() == 6  # it trains
    pd.testing.assert_frame_equal(histories[0], histories[1], rtol=1e-4)
    for name, tensor in weights[0].items():
        torch.testing.assert_close(weights[1][name], tensor, rtol=1e-4, atol=1e-5)
    assert answers[0]["top_classes"].map(list).tolist() == answers[1]["top_classes"].map(list).tolist()


def test_the_backbone_sees_each_image_once(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []
    plain = TokenBackbone.forward

    def counted(backbone: TokenBackbone, images: torch.Tensor) -> torch.Tensor:
        seen.append(len(images))
        return plain(backbone, images)

    monkeypatch.setattr(TokenBackbone, "forward", counted)
    with_probes(project)
    record = train_run(spec_of(project, "once")).record
    assert sum(seen) == record["train_images"] == 21 and record["epochs"] == 6 > EPOCHS
    seen.clear()
    train_run(spec_of(project, "each_step"))
    assert sum(seen) == 6 * 20  # an image is left out of each epoch


def test_killed_it_ends_with_the_same_bytes(fresh: Fresh) -> None:
    one, other = with_probes(fresh()), with_probes(fresh())
    assert train(one, "once").code == 0
    assert train(other, "once", Fate(7, "in the step")).code != 0
    assert train(other, "once").code == 0
    for name in ("model.safetensors", "history.csv", "predictions.parquet"):
        assert (run_dir(one, "once") / name).read_bytes() == (run_dir(other, "once") / name).read_bytes()


@pytest.mark.parametrize(
    ("keys", "reason"),
    [
        ({"train": ["head.*", "backbone.vit.cls_token"]}, "backbone.vit.cls_token trains"),
        ({"train": "all"}, "trains"),
        ({"frozen_mode": "train"}, "the backbone is in training mode"),
        ({"augmentation": "weak"}, "pictures differ"),
        ({"mix_probability": 1.0, "mixup_alpha": 1.0}, "pictures differ"),
        ({"method": "glsim", "options": {"top_k": 2}, "train": "all"}, "'glsim' is more than a head"),
        ({"method": "vpt", "options": {"num_prompts": 2}, "train": ["head.*", "prompts.*"]}, "'vpt' is more"),
    ],
)
def test_it_is_refused_with_the_reason(project: Project, keys: dict[str, Any], reason: str) -> None:
    with_probes(project, **keys)
    with pytest.raises(FgvcError, match=reason) as caught:
        train_run(spec_of(project, "once"))
    assert caught.value.key == "recipe.frozen_features" and caught.value.cure
    assert not any(run_dir(project, "once").iterdir())
