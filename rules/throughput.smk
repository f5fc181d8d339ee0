# How fast a method is on this machine. The job takes every core, so that nothing else disturbs the clock.


rule throughput:
    input:
        "results/splits/{dataset}/split.json",
    output:
        "results/throughput/{dataset}/{method}/{size}/{conditions}.json",
    log:
        "logs/throughput/{dataset}/{method}/{size}/{conditions}.log",
    benchmark:
        "benchmarks/jobs/throughput/{dataset}/{method}/{size}/{conditions}.tsv"
    conda:
        "../environment.yml"
    # Not workflow.cores, which is an error where none are given: on a cluster.
    threads: workflow.resource_settings.cores or 1
    resources:
        gpu=RULES.gpus_per_evaluation,
    params:
        model=lambda w: RULES.throughput_sha256(w.dataset, w.method),
    shell:
        "fgvc benchmark {wildcards.dataset} {wildcards.method} --size {wildcards.size}"
        " --conditions {wildcards.conditions} --write > {log} 2>&1"
