"""The figure of example classifications: test images, and below each what every method takes it for.

Source: the grid of example classifications in the README of edward62740/SC4001-Project at cb581f1.
"""

from __future__ import annotations

import textwrap
from dataclasses import dataclass

from matplotlib.figure import Figure
from PIL import Image

from fgvc.config.grid import exemplary
from fgvc.config.project import Project
from fgvc.config.suite import ExamplesFigure
from fgvc.data.decoding import decode
from fgvc.data.splits import read_class_names
from fgvc.evaluation.metrics import read_predictions
from fgvc.reporting.cells import nothing_to_show, require_finished
from fgvc.reporting.cost_axes import FOOTNOTE_WIDTH, LEFT, WIDTH_INCHES, new_canvas
from fgvc.reporting.grid_table import method_headings, short_titles
from fgvc.reporting.labels import cut_in_the_middle
from fgvc.reporting.runs import read_run

#: Images in a row; the side of one, the room between two, the height of a line of text below, in inches.
ACROSS, SIDE, GAP, LINE = 5, 1.14, 0.09, 0.105
RIGHT_COLOUR, WRONG_COLOUR = "#1b7837", "#b2182b"
#: Letters that fit below an image, in bold, and of a method beside a wrong class.
LETTERS, BOLD_LETTERS, METHOD_LETTERS = 29, 26, 12
#: Pixels of an image's longer side.
PIXELS = 280


@dataclass(frozen=True)
class Answer:
    """What a method (its short title) takes an image for, and with what probability."""

    method: str
    predicted: str
    probability: float
    is_right: bool


@dataclass(frozen=True)
class Example:
    """One test image, named by its path below the dataset's folder."""

    sample_id: str
    true: str
    answers: tuple[Answer, ...]


@dataclass(frozen=True)
class Examples:
    """Those of a figure. ``is_partial``: a method's run is not there yet."""

    dataset: str
    seed: int
    found: tuple[Example, ...]
    test_images: int
    lacking: tuple[str, ...]
    is_partial: bool


def read_examples(
    project: Project, suite_name: str, config: ExamplesFigure, target: str, *, allow_missing: bool = False
) -> Examples:
    """The examples of a suite's first dataset and first seed, at equal distances in the list of test images.

    Raises FgvcError naming missing runs and the command that makes ``target``, unless ``allow_missing``; and
    where no run has predictions.
    """
    cells, seed = exemplary(project, suite_name, config)
    dataset, by_method = cells[0].dataset, {cell.method: cell for cell in cells}
    headings = method_headings(project, by_method)
    runs = {h.key: read_run(project, by_method[h.key], seed) for h in headings}
    if not allow_missing:
        require_finished(project, list(runs.values()), target)
    names = read_class_names(project, dataset)
    titles = short_titles(headings)
    answered: dict[str, list[Answer]] = {}
    true: dict[str, str] = {}
    total = 0
    for method, run in runs.items():
        if run.status != "ok":
            continue
        columns = ("label", "top_classes", "top_probabilities")
        frame = read_predictions(run.directory(project) / "predictions.parquet", columns)
        total = len(frame)
        shown = min(config.images, total)
        rows = frame.iloc[[number * total // shown for number in range(shown)]].to_dict("records")
        for row in rows:
            best, label = int(row["top_classes"][0]), int(row["label"])
            answer = Answer(titles[method], names[best], float(row["top_probabilities"][0]), best == label)
            true[row["sample_id"]] = names[label]
            answered.setdefault(row["sample_id"], []).append(answer)
    if not answered:
        raise nothing_to_show(suite_name, config.image_size, target)
    found = tuple(Example(image, true[image], tuple(answers)) for image, answers in answered.items())
    lacking = tuple(titles[method] for method, run in runs.items() if run.status != "ok")
    unfinished = any(run.is_lacking for run in runs.values())
    return Examples(dataset, seed, found, total, lacking, unfinished)


def draw_examples(project: Project, examples: Examples, config: ExamplesFigure) -> Figure:
    """The figure itself; needs no display.

    Raises FgvcError where an image is not here or cannot be decoded.
    """
    notes = textwrap.wrap(_footnote(project, examples), FOOTNOTE_WIDTH)
    rows = -(-len(examples.found) // ACROSS)
    tall = SIDE + LINE * (1 + len(examples.found[0].answers)) + GAP + 0.05
    below = 0.16 + 0.12 * len(notes)
    height = below + rows * tall + 0.34
    figure = new_canvas(config.title, notes, height)
    for number, example in enumerate(examples.found):
        row, column = divmod(number, ACROSS)
        left = LEFT * WIDTH_INCHES + column * (SIDE + GAP)
        top = height - 0.34 - row * tall
        axes = figure.add_axes(
            (left / WIDTH_INCHES, (top - SIDE) / height, SIDE / WIDTH_INCHES, SIDE / height)
        )
        axes.imshow(_thumbnail(project, examples.dataset, example.sample_id))
        axes.set_axis_off()
        axes.set_gid(f"example-{number}")
        lines = [(cut_in_the_middle(example.true, BOLD_LETTERS), "0.1", "bold")]
        lines += [(_words(a), (WRONG_COLOUR, RIGHT_COLOUR)[a.is_right], "normal") for a in example.answers]
        for place, (text, colour, weight) in enumerate(lines):
            x, y = left / WIDTH_INCHES, (top - SIDE - (place + 0.75) * LINE) / height
            figure.text(x, y, text, size=4.8, color=colour, weight=weight, va="center")
    return figure


def _thumbnail(project: Project, dataset: str, sample_id: str) -> Image.Image:
    image = decode(project.paths.data_dir(dataset) / sample_id)
    image.thumbnail((PIXELS, PIXELS))
    return image


def _words(answer: Answer) -> str:
    if answer.is_right:
        return cut_in_the_middle(f"✓ {answer.probability:.2f} {answer.method}", LETTERS)
    start = f"✗ {answer.probability:.2f} {cut_in_the_middle(answer.method, METHOD_LETTERS)}: "
    return start + cut_in_the_middle(answer.predicted, LETTERS - len(start))


def _footnote(project: Project, examples: Examples) -> str:
    text = "PARTIAL. " if examples.is_partial else ""
    text += (
        f"{project.dataset(examples.dataset).title}: {len(examples.found)} of {examples.test_images} test "
        f"images, at equal distances in their list; seed {examples.seed}. Bold: the class. Below, for each "
        "method: whether the class it takes the image for is right, its probability and, if wrong, its name."
    )
    return text + (f" Without results: {', '.join(examples.lacking)}." if examples.lacking else "")
