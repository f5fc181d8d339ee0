"""The project's own published numbers, with cost records as the rules would make them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from fgvc.audit.report import Report
from fgvc.audit.runs import audit_published
from fgvc.config.audit_facts import audit_costs
from fgvc.config.project import Project
from fgvc.cost.published_formulas import Geometry

ROOT = Path(__file__).resolve().parents[2]
#: GMACs of the other models, roughly: only their order matters here.
MACS_G = {
    "resnet101": 7.8,
    "cal_resnet101": 79.8,
    "transfg_vit_b16": 16.2,
    "ffvt_vit_b16": 17.1,
    "glsim_vit_b16": 35.1,
}


@pytest.fixture(scope="session")
def audited(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """The project's params, and the cost records that the audit asks for."""
    root = tmp_path_factory.mktemp("audited")
    (root / "params").symlink_to(ROOT / "params")
    project = Project(root)
    for variant, size, classes in audit_costs(project):
        geometry = Geometry(size, classes=classes)
        # ViT-B/16 with no head has 85,798,656 parameters; each class costs 769 more.
        record = {
            "macs_g": MACS_G.get(variant, geometry.backbone_macs / 1e9),
            "params_m": (85_798_656 + 769 * classes) / 1e6,
        }
        file = project.paths.cost(variant, size, classes)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(record), encoding="utf-8")
    return project


@pytest.fixture(scope="session")
def published(audited: Project) -> Report:
    return audit_published(audited)
