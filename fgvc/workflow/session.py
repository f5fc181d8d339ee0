"""What the Snakefile, the display and the hooks of one Snakemake process know of each other.

Snakemake makes the display (a logger plugin) before it reads the Snakefile, and calls the hooks at the end;
the Snakefile alone knows the project and the targets.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from fgvc.config.project import Project

if TYPE_CHECKING:
    from fgvc.workflow.display import Display


@dataclass
class Session:
    """One run of the workflow.

    Attributes:
        project: known once the Snakefile is read.
        targets: as the user gave them; empty for the default target.
        bin: what stands before ``snakemake`` and ``fgvc`` in commands to copy: "" where the shell finds them.
        display: known once there is something to show.
    """

    project: Project | None = None
    targets: tuple[str, ...] = ()
    bin: str = ""
    display: Display | None = None


#: Of this process.
SESSION = Session()
