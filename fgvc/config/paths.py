"""Where everything lies. The Snakefile, the verbs and the reports all ask here."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


def rate_text(learning_rate: float) -> str:
    """A learning rate as it stands in paths: ``0.003``, ``1e-05``."""
    return f"{learning_rate:g}"


@dataclass(frozen=True)
class Paths:
    """All paths of a project, relative to ``root`` unless ``root`` is empty.

    With ``Paths(Path())`` the results are relative, as rules want them.
    """

    root: Path

    # --- data -------------------------------------------------------------------------------------
    def data_dir(self, dataset: str) -> Path:
        return self.root / "data" / dataset

    def data_index(self, dataset: str) -> Path:
        return self.root / "data" / f"{dataset}.csv"

    def data_record(self, dataset: str) -> Path:
        return self.root / "data" / f"{dataset}.json"

    def weights(self, weights: str) -> Path:
        return self.root / "data" / "weights" / f"{weights}.safetensors"

    def weights_record(self, weights: str) -> Path:
        return self.root / "data" / "weights" / f"{weights}.json"

    # --- splits and statistics --------------------------------------------------------------------
    def splits_dir(self, dataset: str) -> Path:
        return self.root / "results" / "splits" / dataset

    def split_record(self, dataset: str) -> Path:
        return self.splits_dir(dataset) / "split.json"

    def split_list(self, dataset: str, part: str) -> Path:
        return self.splits_dir(dataset) / f"{part}.csv"

    def stats(self, dataset: str) -> Path:
        return self.root / "results" / "stats" / f"{dataset}.json"

    def data_audit(self, dataset: str, suffix: str) -> Path:
        return self.root / "results" / "audit" / "data" / f"{dataset}.{suffix}"

    def audit(self, name: str) -> Path:
        """Path of an audit's report without its suffix: of a suite, or of ``published`` numbers."""
        return self.root / "results" / "audit" / name

    # --- runs -------------------------------------------------------------------------------------
    def run_dir(self, dataset: str, method: str, size: int | str, seed: int | str) -> Path:
        return self.root / "results" / "runs" / dataset / method / str(size) / f"seed{seed}"

    def sweeps_dir(self, dataset: str, method: str, size: int | str) -> Path:
        return self.root / "results" / "sweeps" / dataset / method / str(size)

    def sweep_dir(self, dataset: str, method: str, size: int | str, learning_rate: float | str) -> Path:
        text = learning_rate if isinstance(learning_rate, str) else rate_text(learning_rate)
        return self.sweeps_dir(dataset, method, size) / f"lr{text}"

    def lr_choice(self, dataset: str, method: str, size: int | str) -> Path:
        return self.sweeps_dir(dataset, method, size) / "lr.json"

    def cost(self, method: str, size: int | str, classes: int | str) -> Path:
        return self.root / "results" / "cost" / method / str(size) / f"{classes}.json"

    def throughput(self, dataset: str, method: str, size: int | str, conditions: str) -> Path:
        return self.root / "results" / "throughput" / dataset / method / str(size) / f"{conditions}.json"

    def layer_similarity(self, dataset: str, method: str, size: int | str, seed: int | str) -> Path:
        return self.root / "results" / "cka" / dataset / method / str(size) / f"seed{seed}.json"

    # --- tables and figures -----------------------------------------------------------------------
    def suite_dir(self, suite: str | None) -> Path:
        """Folder of a suite's tables and figures; None is the default suite's short path."""
        return self.root / "results" / suite if suite else self.root / "results"

    def table(self, suite: str | None, name: str) -> Path:
        """Path of a table without its suffix."""
        return self.suite_dir(suite) / "tables" / name

    def figure(self, suite: str | None, name: str) -> Path:
        """Path of a figure without its suffix."""
        return self.suite_dir(suite) / "figures" / name

    def tracked(self, suite: str | None) -> Path:
        """What `fgvc track` gave to DVC of a suite."""
        return self.suite_dir(suite) / "tracked.json"

    # --- undeclared -------------------------------------------------------------------------------
    def state_dir(self, result_dir: Path) -> Path:
        """Resume state of the run whose results go to ``result_dir``."""
        return self.root / "state" / result_dir.relative_to(self.root / "results")

    def state(self, *parts: str) -> Path:
        return self.root.joinpath("state", *parts)

    def shown(self, path: Path) -> str:
        """``path`` as a user would type it: relative to the project when inside it."""
        try:
            return str(path.relative_to(self.root))
        except ValueError:
            return str(path)
