# Tables and figures of a suite: results/SUITE/…, and results/… for the default suite.


rule table:
    input:
        lambda w: RULES.table_inputs(w.suite, w.table),
    output:
        tex="results/{suite}/tables/{table}.tex",
        md="results/{suite}/tables/{table}.md",
        csv=report(
            "results/{suite}/tables/{table}.csv",
            caption="../workflow/report/table.rst",
            category="Tables",
            labels={"table": "{table}", "suite": "{suite}"},
        ),
    log:
        "logs/table/{suite}/{table}.log",
    benchmark:
        "benchmarks/jobs/table/{suite}/{table}.tsv"
    conda:
        "../environment.yml"
    params:
        shown=lambda w: RULES.shown_sha256(w.suite, "table", w.table),
        about=lambda w: RULES.about("table", w.table),
        suite=lambda w: f"--suite {w.suite}",
    shell:
        "fgvc table {wildcards.table} {params.suite} --write > {log} 2>&1"


use rule table as table_default with:
    input:
        lambda w: RULES.table_inputs(None, w.table),
    output:
        tex="results/tables/{table}.tex",
        md="results/tables/{table}.md",
        csv=report(
            "results/tables/{table}.csv",
            caption="../workflow/report/table.rst",
            category="Tables",
            labels={"table": "{table}", "suite": "(default)"},
        ),
    log:
        "logs/table/{table}.log",
    benchmark:
        "benchmarks/jobs/table/{table}.tsv"
    params:
        shown=lambda w: RULES.shown_sha256(None, "table", w.table),
        about=lambda w: RULES.about("table", w.table),
        suite="",


rule figure:
    input:
        lambda w: RULES.figure_inputs(w.suite, w.figure),
    output:
        pdf="results/{suite}/figures/{figure}.pdf",
        png=report(
            "results/{suite}/figures/{figure}.png",
            caption="../workflow/report/figure.rst",
            category="Figures",
            labels={"figure": "{figure}", "suite": "{suite}"},
        ),
    log:
        "logs/figure/{suite}/{figure}.log",
    benchmark:
        "benchmarks/jobs/figure/{suite}/{figure}.tsv"
    conda:
        "../environment.yml"
    params:
        shown=lambda w: RULES.shown_sha256(w.suite, "figure", w.figure),
        about=lambda w: RULES.about("figure", w.figure),
        suite=lambda w: f"--suite {w.suite}",
    shell:
        "fgvc figure {wildcards.figure} {params.suite} > {log} 2>&1"


use rule figure as figure_default with:
    input:
        lambda w: RULES.figure_inputs(None, w.figure),
    output:
        pdf="results/figures/{figure}.pdf",
        png=report(
            "results/figures/{figure}.png",
            caption="../workflow/report/figure.rst",
            category="Figures",
            labels={"figure": "{figure}", "suite": "(default)"},
        ),
    log:
        "logs/figure/{figure}.log",
    benchmark:
        "benchmarks/jobs/figure/{figure}.tsv"
    params:
        shown=lambda w: RULES.shown_sha256(None, "figure", w.figure),
        about=lambda w: RULES.about("figure", w.figure),
        suite="",


ruleorder: figure_with_csv > figure
ruleorder: figure_with_csv_default > figure_default


use rule figure as figure_with_csv with:
    output:
        pdf="results/{suite}/figures/{figure}.pdf",
        png=report(
            "results/{suite}/figures/{figure}.png",
            caption="../workflow/report/figure.rst",
            category="Figures",
            labels={"figure": "{figure}", "suite": "{suite}"},
        ),
        csv="results/{suite}/figures/{figure}.csv",
    wildcard_constraints:
        figure=RULES.figures_with_csv,


use rule figure_default as figure_with_csv_default with:
    output:
        pdf="results/figures/{figure}.pdf",
        png=report(
            "results/figures/{figure}.png",
            caption="../workflow/report/figure.rst",
            category="Figures",
            labels={"figure": "{figure}", "suite": "(default)"},
        ),
        csv="results/figures/{figure}.csv",
    wildcard_constraints:
        figure=RULES.figures_with_csv,
