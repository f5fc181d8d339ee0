"""fgvc explain cka."""

from __future__ import annotations

import json

from fgvc.cli.groups import AsJson, DatasetName, Device, MethodName, Size, example, explain_app
from fgvc.cli.runs import Seed, checked
from fgvc.config.project import Project
from fgvc.provenance.stopping import StopRequest


@explain_app.command(epilog=example("fgvc explain cka typefaces vit_pico --size 224 --seed 1"))
def cka(
    dataset: DatasetName,
    method: MethodName,
    size: Size = 224,
    seed: Seed = 1,
    device: Device = None,
    as_json: AsJson = False,
) -> None:
    """Compare the blocks of a trained ViT by CKA.

    Of its attention maps and of its features, on up to 256 test images. Writes results/cka/….
    """
    project = Project.find()
    name = checked(project, dataset, method)
    with StopRequest():
        from fgvc.explain.layer_similarity import write_layer_similarity

        record = write_layer_similarity(project, name, method, size, seed, device=device)
    if as_json:
        print(json.dumps(record, indent=2))
        return
    if record["status"] == "diverged":
        print(f"the run diverged: {record['cause']}")
    else:
        print(
            f"mean CKA of different blocks: attention maps {record['attention_mean_off_diagonal']:.3f}, "
            f"features {record['features_mean_off_diagonal']:.3f} "
            f"({len(record['tokens'])} blocks, {record['images']} images)"
        )
    print(project.paths.shown(project.paths.layer_similarity(name, method, size, seed)))
