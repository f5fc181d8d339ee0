# fgvc-bench: from a dataset's name to the paper's table.
#
#   snakemake --cores 8 results/tables/sota_224.tex               the default suite (params/config.yaml)
#   snakemake --cores 8 -- results/sota/tables/sota_224.tex       another suite
#   snakemake --cores 2                                           every table and figure of the default suite
#
# An index: what a rule does stands in rules/, and every rule calls one verb of `fgvc`.

from snakemake.exceptions import WorkflowError
from snakemake.utils import min_version

from fgvc.config.conditions import PATTERN as CONDITIONS
from fgvc.config.stages import version
from fgvc.errors import FgvcError
from fgvc.workflow import hooks

min_version("9.20")

try:
    RULES = hooks.begin(workflow)
    DEFAULT_TARGETS = RULES.targets(None)
except FgvcError as error:
    raise WorkflowError(str(error)) from None


wildcard_constraints:
    dataset=r"[a-z0-9_]+",
    method=r"[a-z0-9_]+",
    weights=r"[a-zA-Z0-9_.-]+",
    suite=r"[a-z0-9_]+",
    table=r"[a-z0-9_]+",
    figure=r"[a-z0-9_]+",
    size=r"[1-9][0-9]*",
    seed=r"[0-9]+",
    classes=r"[1-9][0-9]*",
    conditions=CONDITIONS,
    lr=r"[0-9]+(\.[0-9]+)?(e-?[0-9]+)?",


# On a cluster these run beside the driver, few at a time (local-cores of the profile): small jobs, and those
# that need the network, which nodes often lack.
localrules:
    all,
    fetch,
    weights,
    split,
    stats,
    select_lr,
    table,
    table_default,
    figure,
    figure_default,
    figure_with_csv,
    figure_with_csv_default,
    track,
    track_suite,
    audit_published,
    audit_suite,


rule all:
    default_target: True
    input:
        DEFAULT_TARGETS,


include: "rules/data.smk"
include: "rules/train.smk"
include: "rules/cost.smk"
include: "rules/throughput.smk"
include: "rules/explain.smk"
include: "rules/tables.smk"
include: "rules/audit.smk"
include: "rules/track.smk"


report: "workflow/report/workflow.rst"


onstart:
    hooks.on_start(RULES, workflow)


onsuccess:
    hooks.on_success(RULES)


onerror:
    hooks.on_error(RULES, log)
