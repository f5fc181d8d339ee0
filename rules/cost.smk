# What one image's inference costs: MACs, FLOPs, parameters. No data and no weights are needed.


rule cost:
    output:
        "results/cost/{method}/{size}/{classes}.json",
    log:
        "logs/cost/{method}/{size}/{classes}.log",
    benchmark:
        "benchmarks/jobs/cost/{method}/{size}/{classes}.tsv"
    conda:
        "../environment.yml"
    params:
        model=lambda w: RULES.cost_sha256(w.method),
    shell:
        "fgvc cost {wildcards.method} --size {wildcards.size} --classes {wildcards.classes}"
        " --write > {log} 2>&1"
