# A suite's finished data, weights and runs into DVC and onto its remote: `snakemake -- track`.
# Git, DVC and a lock between processes make these local; nothing that they read is changed.


rule track:
    input:
        lambda w: RULES.tracked_inputs(None),
    output:
        "results/tracked.json",
    log:
        "logs/track/default.log",
    benchmark:
        "benchmarks/jobs/track/default.tsv"
    conda:
        "../environment.yml"
    params:
        suite="",
    shell:
        "fgvc track {params.suite} --write > {log} 2>&1"


use rule track as track_suite with:
    input:
        lambda w: RULES.tracked_inputs(w.suite),
    output:
        "results/{suite}/tracked.json",
    log:
        "logs/track/{suite}.log",
    benchmark:
        "benchmarks/jobs/track/{suite}.tsv"
    params:
        suite=lambda w: f"--suite {w.suite}",
