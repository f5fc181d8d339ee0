"""Small archives as upstream packs them: real structure and file formats, three classes, fabricated pictures.

`ARCHIVES[name]()` gives a dataset's downloads (mirror path → bytes) and, beside them, the truth: which rows
each part must have, in which order. Lists are in no sorted order, so that a parser which sorts is seen.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import PurePosixPath
from typing import Any

import numpy as np
from archivekit import TRAIN, Archive, Row, all_paths, annotations, cell, lines, mat, parts, pictures

# --- tables joined by an id ------------------------------------------------------------------------


def _joined(
    top: str, rows: dict[str, list[Row]], ids: list[str], sources: list[int], names: dict[int, str]
) -> dict[str, bytes]:
    """The four tables, the labels' one upside down; ``sources`` are the archive's ids of our classes."""
    flagged = [(c, p.removeprefix(f"{top}/images/"), part) for part, own in rows.items() for c, p in own]
    joined = list(zip(ids, flagged, strict=True))
    return {
        f"{top}/images.txt": lines([f"{i} {path}" for i, (_, path, _) in joined]),
        f"{top}/image_class_labels.txt": lines([f"{i} {sources[c]}" for i, (c, _, _) in joined][::-1]),
        f"{top}/train_test_split.txt": lines(
            [f"{i} {int(part == 'train_val')}" for i, (_, _, part) in joined]
        ),
        f"{top}/classes.txt": lines([f"{source} {name}" for source, name in names.items()]),
        f"{top}/bounding_boxes.txt": lines([f"{i} 60.0 27.0 325.0 304.0" for i in ids]),
    }


def cub() -> Archive:
    names = ["001.Black_footed_Albatross", "002.Laysan_Albatross", "003.Sooty_Albatross"]
    top = "CUB_200_2011"
    rows = parts(lambda c, n, _: f"{names[c]}/{names[c][4:]}_{n:04d}_{90 - n}.jpg", f"{top}/images/")
    ids = [str(number) for number in range(1, 22)]
    tables = _joined(top, rows, ids, [1, 2, 3], {i + 1: name for i, name in enumerate(names)})
    extras = {
        f"{top}/README": b"read me",
        f"{top}/attributes/certainties.txt": b"1 x",
        "attributes.txt": b"1",
    }
    files = pictures(all_paths(rows)) | tables | extras
    return Archive({"cub/CUB_200_2011.tgz": files}, rows, names)


def nabirds() -> Archive:
    """Class ids with gaps, a tree of classes, ids of images that are UUIDs, names with spaces."""
    sources = [295, 297, 1010]
    names = {0: "Birds", 1: "Ducks, Geese, and Swans", 295: "Common Eider (Adult male)", 296: "No image"}
    names |= {297: "Ruddy Duck (Breeding male)", 1010: "Dark-eyed Junco (Red-backed/Gray-headed)"}
    rows = parts(
        lambda c, n, _: f"{sources[c]:04d}/{c}{n}01fd7c3b1b242eba5c020aaad4fb429.jpg", "nabirds/images/"
    )
    ids = [f"{number:08x}-dd7c-3b1b-242e-ba5c020aaad4" for number in range(21)]
    tables = _joined("nabirds", rows, ids, sources, names)
    tables["nabirds/hierarchy.txt"] = b"1 0\n295 1\n"
    files = pictures(all_paths(rows)) | tables
    return Archive({"nabirds/nabirds.tar.gz": files}, rows, [names[source] for source in sources])


# --- text lists ------------------------------------------------------------------------------------


def aircraft() -> Archive:
    names = ["707-320", "Boeing 717", "Falcon 2000"]
    data = "fgvc-aircraft-2013b/data"
    rows = parts(lambda c, n, _: f"{c}{n:06d}.jpg", f"{data}/images/")
    told = {part: [f"{PurePosixPath(p).stem} {names[c]}" for c, p in own] for part, own in rows.items()}
    train = [line for i, line in enumerate(told["train_val"]) if i % TRAIN < 3]
    val = [line for i, line in enumerate(told["train_val"]) if i % TRAIN >= 3]
    tables = {"train": train, "val": val, "trainval": sorted(told["train_val"]), "test": told["test"]}
    files = pictures(all_paths(rows))
    files |= {f"{data}/images_variant_{part}.txt": lines(text) for part, text in tables.items()}
    files |= {f"{data}/variants.txt": lines(names), f"{data}/families.txt": lines(["Boeing 707", "Falcon"])}
    files |= {"fgvc-aircraft-2013b/README.html": b"<html>"}
    # The published list has the train list first, then the val list.
    rows["train_val"] = [
        (names.index(t.partition(" ")[2]), f"{data}/images/{t.split()[0]}.jpg") for t in train + val
    ]
    return Archive({"aircraft/fgvc-aircraft-2013b.tar.gz": files}, rows, names)


def pets() -> Archive:
    names = ["Abyssinian", "american_bulldog", "Bengal"]
    top = "oxford-iiit-pet"
    rows = parts(lambda c, n, _: f"{names[c]}_{n}.jpg", f"{top}/images/")
    listed = {
        part: lines([f"{PurePosixPath(p).stem} {c + 1} 1 {c + 1}" for c, p in own])
        for part, own in rows.items()
    }
    images = {path.removeprefix(f"{top}/"): data for path, data in pictures(all_paths(rows)).items()}
    annotations = {
        "annotations/list.txt": b"#Image CLASS-ID SPECIES BREED ID\nAbyssinian_1 1 1 1\n",
        "annotations/trainval.txt": listed["train_val"],
        "annotations/test.txt": listed["test"],
        "annotations/trimaps/Abyssinian_1.png": b"a mask",
        "annotations/README": b"read me",
    }
    files = {
        "pets/images.tar.gz": images | {"images/Abyssinian_1.mat": b"x"},
        "pets/annotations.tar.gz": annotations,
    }
    return Archive(files, rows, names)


def vegfru() -> Archive:
    names = ["Chinese_artichoke", "kale", "loquat"]
    rows = parts(lambda c, n, _: f"{names[c]}/v_{c:02d}_{n:04d}.jpg", "images/")
    groups = ["veg200_images", "veg200_images", "fru92_images"]
    told = {
        part: [f"{groups[c]}/{p.removeprefix('images/')} {c}" for c, p in own] for part, own in rows.items()
    }
    lists = {"train": told["train_val"][:10], "val": told["train_val"][10:], "test": told["test"]}
    files = pictures(all_paths(rows))
    files |= {f"vegfru_list/vegfru_{part}.txt": lines(text) for part, text in lists.items()}
    return Archive({"vegfru/vegfru.tar": files}, rows, names)


def dafb() -> Archive:
    names = ["hatsune_miku", "hakurei_reimu", "kirisame_marisa"]
    rows = parts(lambda c, n, _: f"{n:04d}/{c}{n:06d}.jpg", "fullMin256/")
    told = {part: [f"{c},{p.removeprefix('fullMin256/')}" for c, p in own] for part, own in rows.items()}
    every = {"train": told["train_val"][0::5] + told["train_val"][1::5], "test": told["test"]}
    every["val"] = [line for line in told["train_val"] if line not in every["train"]]
    labels = {f"labels/{part}.csv": lines(["class_id,dir", *text]) for part, text in every.items()}
    labels["labels/classid_classname.csv"] = lines(
        ["class_id,class_name", *(f"{c},{name}" for c, name in enumerate(names))]
    )
    listed = {
        part: [(int(c), f"fullMin256/{p}") for c, p in (line.split(",") for line in text)]
        for part, text in every.items()
    }
    listed["train_val"] = listed["train"] + listed["val"]
    files = {"dafb/dafre_full.tar.gz": pictures(all_paths(rows)), "dafb/labels.tar.gz": labels}
    return Archive(files, listed, names, provenance="ours")


# --- MATLAB files ----------------------------------------------------------------------------------


def cars() -> Archive:
    names = ["AM General Hummer SUV 2000", "Acura RL Sedan 2012", "Volvo 240 Sedan 1993"]
    rows = parts(lambda c, n, _: f"{10 * c + n:06d}.jpg", "car_ims/")
    boxes = {"bbox_x1": 1, "bbox_y1": 2, "bbox_x2": 3, "bbox_y2": 4}
    entries = [
        {"relative_im_path": path, **boxes, "class": np.uint8(c + 1), "test": np.uint8(part == "test")}
        for part, own in rows.items()
        for c, path in own
    ]
    annos = mat(annotations=annotations(entries), class_names=cell(names).T)
    files = {"cars/car_ims.tgz": pictures(all_paths(rows)), "cars/cars_annos.mat": {"cars_annos.mat": annos}}
    return Archive(files, rows, names)


def cars_devkit() -> Archive:
    """The other form of Stanford Cars: a folder, an archive and a file of annotations a part."""
    names = cars().names
    rows = {
        part: [(c, f"{folder}/{n:05d}.jpg") for n, c in enumerate((2, 0, 1, 1, 0, 2, 0, 1, 2, 2)[:count], 1)]
        for part, folder, count in (("train_val", "cars_train", 10), ("test", "cars_test", 6))
    }
    annos = {
        part: mat(
            annotations=annotations(
                [{"bbox_x1": 3, "class": c + 1, "fname": p.split("/")[1]} for c, p in own]
            )
        )
        for part, own in rows.items()
    }
    devkit = {"cars_train_annos.mat": annos["train_val"], "cars_meta.mat": mat(class_names=cell(names).T)}
    labels = "cars_test_annos_withlabels.mat"
    files = {
        "cars/cars_train.tgz": pictures([path for _, path in rows["train_val"]]),
        "cars/cars_test.tgz": pictures([path for _, path in rows["test"]]),
        "cars/car_devkit.tgz": {f"devkit/{file}": data for file, data in devkit.items()},
        f"cars/{labels}": {labels: annos["test"]},
    }
    return Archive(files, rows, names)


def dogs() -> Archive:
    names = ["n02085620-Chihuahua", "n02085782-Japanese_spaniel", "n02085936-Maltese_dog"]
    rows = parts(lambda c, n, _: f"{names[c]}/{names[c][:9]}_{n}.jpg", "Images/")

    def listed(own: list[Row]) -> bytes:
        paths = [path.removeprefix("Images/") for _, path in own]
        return mat(
            file_list=cell(paths),
            annotation_list=cell([path.removesuffix(".jpg") for path in paths]),
            labels=np.array([[c + 1] for c, _ in own], dtype=np.uint8),
        )

    lists = {"train_list.mat": listed(rows["train_val"]), "test_list.mat": listed(rows["test"])}
    lists["file_list.mat"] = listed(rows["train_val"] + rows["test"])
    return Archive({"dogs/images.tar": pictures(all_paths(rows)), "dogs/lists.tar": lists}, rows, names)


def flowers() -> Archive:
    """Numbers run through all classes; the official val part is there."""
    rows = parts(lambda c, n, _: f"image_{7 * c + n:05d}.jpg", "flowers-102/jpg/")
    labels = np.array([[number // 7 + 1 for number in range(21)]], dtype=np.uint8)

    def numbers(own: list[Row]) -> Any:
        return np.array([[int(path[-9:-4]) for _, path in own]], dtype=np.uint16)

    train = [row for i, row in enumerate(rows["train_val"]) if i % TRAIN < 3]
    val = [row for row in rows["train_val"] if row not in train]
    setid = mat(trnid=numbers(train), valid=numbers(val), tstid=numbers(rows["test"]))
    images = {path.removeprefix("flowers-102/"): data for path, data in pictures(all_paths(rows)).items()}
    files = {
        "flowers/102flowers.tgz": images,
        "flowers/imagelabels.mat": {"imagelabels.mat": mat(labels=labels)},
        "flowers/setid.mat": {"setid.mat": setid},
    }
    rows = {"train": train, "val": val, "train_val": train + val, "test": rows["test"]}
    return Archive(files, rows, [f"class {c}" for c in range(3)])


# --- JSON ------------------------------------------------------------------------------------------


def food() -> Archive:
    """The JSON object is in no order of classes; ids are lines of classes.txt."""
    names = ["apple_pie", "churros", "samosa"]
    top = "food-101"
    rows = parts(lambda c, n, _: f"{names[c]}/{1000 + n}.jpg", f"{top}/images/")

    def by_class(own: list[Row]) -> bytes:
        stems = {name: [p[len(f"{top}/images/") : -4] for c, p in own if names[c] == name] for name in names}
        return json.dumps({name: stems[name] for name in ("churros", "apple_pie", "samosa")}).encode()

    files = pictures(all_paths(rows))
    files |= {
        f"{top}/meta/{part}.json": by_class(rows[ours])
        for part, ours in (("train", "train_val"), ("test", "test"))
    }
    files |= {f"{top}/meta/classes.txt": lines(names), f"{top}/meta/train.txt": b"apple_pie/1001\n"}
    files |= {f"{top}/README.txt": b"read me", f"{top}/meta/labels.txt": b"Apple pie\n"}
    rows = {part: [row for c in (1, 0, 2) for row in own if row[0] == c] for part, own in rows.items()}
    return Archive({"food/food-101.tar.gz": files}, rows, names)


def inat17() -> Archive:
    """Categories and annotations in no order; their ids have gaps."""
    names = ["Acer rubrum", "Zonotrichia leucophrys", "Mus musculus"]
    sources = [2, 40, 5088]
    rows = parts(lambda c, n, _: f"Aves/{names[c]}/{c}{n:031d}.jpg", "train_val_images/")

    def coco(own: list[Row], first: int) -> bytes:
        numbered = list(enumerate(own, first))
        data = {
            "info": {"year": 2017},
            "images": [{"id": i, "file_name": p, "width": 12, "height": 9} for i, (_, p) in numbered],
            "annotations": [
                {"id": i, "image_id": i, "category_id": sources[c]} for i, (c, _) in reversed(numbered)
            ],
            "categories": [{"id": sources[c], "name": names[c], "supercategory": "Aves"} for c in (2, 0, 1)],
        }
        return json.dumps(data).encode()

    lists = {"train2017.json": coco(rows["train_val"], 0), "val2017.json": coco(rows["test"], 900)}
    files = {"inat17/train_val_images.tar.gz": pictures(all_paths(rows)), "inat17/train_val2017.zip": lists}
    return Archive(files, rows, names)


# --- folders and file names ------------------------------------------------------------------------


def moe() -> Archive:
    names = ["004_takamachi_nanoha", "103_reinforce_zwei", "178_milfeulle_sakuraba"]
    paths = {c: [f"data/{name}/face_{n}_64_54.png" for n in range(1, 8)] for c, name in enumerate(names)}
    files = pictures([path for own in paths.values() for path in own])
    files |= {f"data/{name}/color.csv": b"1,2,3" for name in names}
    rows = {
        "train_val": [(c, p) for c, own in paths.items() for p in own[:5]],
        "test": [(c, p) for c, own in paths.items() for p in own[5:]],
    }
    return Archive({"moe/data.tar": files}, rows, names, provenance="ours")


def ultra_fine(download: str, stages: tuple[str, ...] = (), of: tuple[str, ...] = ()) -> Archive:
    """Class, number and part in the file name; ``stages``: folders above, of which ``of`` count."""

    def named(stage: str) -> dict[str, list[Row]]:
        return parts(lambda c, n, part: f"{c + 1}_{n}_{part}.png", f"images/{stage}/" if stage else "images/")

    files = pictures([path for stage in stages or ("",) for path in all_paths(named(stage))])
    chosen = [named(stage) for stage in (of or stages or ("",))]
    rows = {
        part: sorted((row for own in chosen for row in own[part]), key=lambda row: row[1])
        for part in ("train_val", "test")
    }
    return Archive({download: files}, rows, ["class 1", "class 2", "class 3"])


STAGES = ("R1", "R3", "R4", "R5", "R6")

ARCHIVES: dict[str, Callable[[], Archive]] = {
    "aircraft": aircraft,
    "cars": cars,
    "cotton80": lambda: ultra_fine("cotton80/images.tar"),
    "cub": cub,
    "dafb": dafb,
    "dogs": dogs,
    "flowers": flowers,
    "food": food,
    "inat17": inat17,
    "moe": moe,
    "nabirds": nabirds,
    "pets": pets,
    "soyageing": lambda: ultra_fine("soyageing/images.tar", STAGES),
    **{
        f"soyageing_{stage.lower()}": lambda stage=stage: ultra_fine("soyageing/images.tar", STAGES, (stage,))
        for stage in STAGES
    },
    "soygene": lambda: ultra_fine("soygene/images.tar"),
    "soyglobal": lambda: ultra_fine("soyglobal/images.tar"),
    "soylocal": lambda: ultra_fine("soylocal/images.tar"),
    "vegfru": vegfru,
}
