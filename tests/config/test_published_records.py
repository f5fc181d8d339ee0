"""The flat list of published numbers: complete, without doubles, and as it was handed over."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import yaml

from fgvc.config.project import Project
from fgvc.config.published import Protocol
from fgvc.config.published_list import PublishedRecords
from fgvc.config.published_records import NOT_STATED, Record, published_records

ROOT = Path(__file__).resolve().parents[2]
PROJECT = Project(ROOT)
RECORDS = published_records(PROJECT)
BY_ID = {r.id: r for r in RECORDS}
#: The hand-over numbers the note that it quotes; nobody else could follow the number.
_NUMBER = re.compile(r"(?<=AOFT paper notes), \w+ id \d+")


@pytest.fixture(scope="module")
def reference(shared: Path) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = yaml.safe_load((shared / "reference/published.yaml").read_text())
    return found


def _key_of_reference(record: dict[str, Any]) -> tuple[Any, ...]:
    """All that a record says of its number, but where it stands."""
    note = record.get("note")
    return (
        *(record[k] for k in ("method", "dataset", "image_size", "metric", "value")),
        *(record.get(k) for k in ("std", "unit", "evidence", "reported_by", "backbone")),
        note and _NUMBER.sub("", note),
        bool(record.get("approximate")),
        bool(record.get("recalled_unverified")),
    )


def _key_of(record: Record) -> tuple[Any, ...]:
    return (
        *(record.method, record.dataset, record.image_size),
        record.metric.removeprefix("average_"),
        *(record.value, record.std, record.unit, record.evidence, record.reported_by),
        None if record.backbone == NOT_STATED else record.backbone,
        record.note,
        record.approximate,
        record.recalled,
    )


def test_the_list_is_the_reference_with_nothing_lost_added_or_doubled(
    reference: list[dict[str, Any]],
) -> None:
    assert len(RECORDS) == len(reference) == 577
    assert len(BY_ID) == 577
    assert Counter(map(_key_of, RECORDS)) == Counter(map(_key_of_reference, reference))


def test_every_number_stands_where_the_reference_says(reference: list[dict[str, Any]]) -> None:
    places: dict[tuple[Any, ...], list[str]] = {}
    for handed in reference:
        places.setdefault(_key_of_reference(handed), []).append(handed["source"])
    for record in RECORDS:
        assert any(_stands_in(record, place) for place in places[_key_of(record)]), record.source.full


def _stands_in(record: Record, place: str) -> bool:
    """Whether a sentence of the reference names all that ours says of a number's place."""
    source = record.source
    if record.evidence == "recomputed_here":
        return source.table == place
    parts = [source.paper, source.arxiv, source.doi]
    parts += [] if record.recalled else [source.table]
    parts += [f"@{source.commit}"] if "@" in place else []
    parts += [source.asset] if "assets/" in place or ".log " in place else []
    return all(part in place for part in parts if part)


def test_pretraining_is_that_of_the_reference_where_it_says_any(reference: list[dict[str, Any]]) -> None:
    handed = {_key_of_reference(r): r["pretraining"] for r in reference if r["pretraining"]}
    ours = {_key_of(r): r.pretraining for r in RECORDS if _key_of(r) in handed}
    assert ours == handed


def test_numbers_have_the_decimals_that_they_were_printed_with() -> None:
    for record in RECORDS:
        for value in (record.value, record.std):
            assert value is None or round(value, record.decimals) == pytest.approx(value, abs=1e-12)
    assert BY_ID["glsim_table4/resnet101/nabirds"].decimals == 2, "81.00, not 81.0"
    assert BY_ID["ielt_logs/last/flowers"].decimals == 3, "99.610"
    assert BY_ID["glsim_table1/psm/448/flops_g"].decimals == -1, "620: its last digit stands for tens"
    assert BY_ID["glsim_table1/psm/448/flops_pct_of_backbone"].decimals == 2, "781.31"
    assert BY_ID["sc4001_table2/sc4001/cub"].decimals == 3, "88.107"


def test_what_was_only_remembered_is_listed_and_is_no_reference() -> None:
    recalled = [r for r in RECORDS if r.recalled]
    assert len(recalled) == 9
    assert {r.evidence for r in recalled} == {"none"}
    assert not any(r.is_reference for r in recalled)
    assert all(r.is_reference for r in RECORDS if not r.recalled)


@pytest.mark.parametrize(
    ("record", "protocol"),
    [
        (
            "glsim_table4/glsim/cub",
            {"split": "glsim_lists", "selection": "last_epoch", "training": "full", "seeds": 3},
        ),
        (
            "ielt_logs/best/cub",
            {
                "selection": "best_on_test",
                "processes": 4,
                "seeds": 1,
                "split": "official",
                "training": "full",
            },
        ),
        ("ielt_logs/last/cub", {"selection": "last_epoch", "processes": 4, "seeds": 1}),
        ("ila_table1/vit_b16/cotton80", {"selection": "last_epoch", "training": "frozen", "seeds": 3}),
        ("ila_table1/transfg_full/cotton80", {"selection": None, "training": "full", "seeds": 1}),
        ("cal_quoted/cal/cub", {"selection": "best_on_test", "views": 8}),
        ("transfg_quoted/transfg/cub", {"selection": "best_on_test", "processes": 4}),
        ("pim_abstract/pim/cub", {"selection": "best_on_test"}),
        ("convpass_vtab1k/full/pets", {"split": "vtab1k", "selection": None, "training": "full"}),
        ("vpetl_fgvc/bitfit/cub", {"split": "vpt_train_val", "selection": None, "training": "frozen"}),
        ("vpetl_fgvc/full_fine_tuning/cub", {"split": "vpt_train_val", "training": "full"}),
        ("hawkeye_results/bcnn/original", {}),
    ],
)
def test_a_number_has_the_protocol_that_is_known_of_it(record: str, protocol: dict[str, Any]) -> None:
    found = BY_ID[record].protocol
    assert {key: getattr(found, key) for key in protocol} == protocol
    if not protocol:
        assert found == Protocol()


def test_variants_are_of_the_size_and_method_that_the_column_names() -> None:
    linked = {(r.variant, r.method) for r in RECORDS if r.variant}
    assert linked == {
        ("resnet101", "ResNet-101"),
        ("cal_resnet101", "CAL"),
        ("vit_b16", "ViT B-16"),
        ("transfg_vit_b16", "TransFG"),
        ("ffvt_vit_b16", "FFVT"),
        ("glsim_vit_b16", "GLSim"),
        ("simtrans_vit_b16", "SIM-Trans"),
        # ILA's Table 1: with a frozen backbone, so that its "ViT B-16" is a linear head.
        ("linear_vit_b16", "ViT B-16"),
        ("mpnc_vit_b16_frozen", "MPNC (MPN-COV)"),
        ("ifa_vit_b16", "IFA"),
        ("transfg_vit_b16_frozen", "TransFG"),
        ("ffvt_vit_b16_frozen", "FFVT"),
        ("cal_vit_b16_frozen", "CAL"),
        ("rams_vit_b16_frozen", "RAMS-Trans"),
        ("glsim_vit_b16_frozen", "GLSim"),
        ("vqt_vit_b16", "VQT"),
        ("vpt_shallow_vit_b16", "VPT-Shallow"),
        ("vpt_deep_vit_b16", "VPT-Deep"),
        ("convpass_vit_b16", "ConvPass"),
        ("adapter_vit_b16", "Adapter (ADPT)"),
        ("ila_p_vit_b16", "ILA+"),
        ("ila_pp_vit_b16", "ILA++"),
        # The README's rows, and its Table 2, whose configuration it does not state.
        ("ielt_vit_b16", "IELT (SGD 2e-2, CE)"),
        ("sc4001_vit_b16", "IELT + triplet + multi-scale gaussian (SGD 2e-2)"),
        ("sc4001_dinov2_b", "IELT + triplet + multi-scale gaussian (AdamW 1e-5)"),
        ("sc4001_dinov2_s", "IELT + triplet + multi-scale gaussian (AdamW 1e-5)"),
        ("sc4001_dinov2_b", "SC4001 (IELT+DINOv2, unspecified config)"),
        ("pim_swin", "PIM"),
    }


# --- what the nearest says is heard -------------------------------------------------------------------


def _list(**more: Any) -> PublishedRecords:
    facts = {
        "kind": "records",
        "title": "T",
        "source": {"paper": "P", "short": "P", "table": "Table 1", "evidence": "primary_repo_asset"},
        "metric": "top1",
        "unit": "%",
        "decimals": 1,
        "reported_by": "own paper",
        "note": "of the file",
        "protocol": {"selection": "best_on_test", "seeds": 3},
        "rows": {"a": {"title": "A", "dataset": None}, "b": {"title": "B", "dataset": None, "note": None}},
        "columns": {"m": {"method": "M", "note": "of the column", "cells": {"a": 1.5, "b": {"value": 2.0}}}},
    }
    return PublishedRecords.model_validate(facts | more)


def test_a_cell_is_described_by_itself_then_its_row_then_its_column_then_the_file() -> None:
    columns = {
        "m": {
            "method": "M",
            "note": "of the column",
            "cells": {"a": {"value": 1.5, "note": "own"}, "b": 2.0},
        },
        "k": {"method": "K", "cells": {"a": 1.0}},
        "l": {"method": "L", "note": "of the column", "cells": {"a": 1.0}},
    }
    found = _list(columns=columns)
    assert found.fact("m", "a", "note") == "own"
    assert found.fact("m", "b", "note") is None, "the row says that there is none"
    assert found.fact("l", "a", "note") == "of the column"
    assert found.fact("k", "a", "note") == "of the file"


def test_each_field_of_a_protocol_is_said_by_the_nearest_that_says_it() -> None:
    column = {"method": "M", "protocol": {"selection": None, "views": 8}, "cells": {"a": 1.5}}
    assert _list(columns={"m": column}).protocol_of("m", "a") == Protocol(views=8, seeds=3)


def test_a_list_of_remembered_numbers_holds_no_reference() -> None:
    assert _list().has_references
    assert not _list(evidence="none").has_references
    own = {"method": "M", "cells": {"a": {"value": 1.5, "evidence": "secondary_page"}}}
    assert _list(evidence="none", columns={"m": own}).has_references
