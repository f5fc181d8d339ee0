# How alike the layers of a run's ViT are: CKA of its attention maps and of its features, on test images.


rule cka:
    input:
        "results/runs/{dataset}/{method}/{size}/seed{seed}/run.json",
    output:
        "results/cka/{dataset}/{method}/{size}/seed{seed}.json",
    log:
        "logs/cka/{dataset}/{method}/{size}/seed{seed}.log",
    benchmark:
        "benchmarks/jobs/cka/{dataset}/{method}/{size}/seed{seed}.tsv"
    conda:
        "../environment.yml"
    threads: lambda w: RULES.threads(w.dataset, w.method)
    resources:
        gpu=RULES.gpus_per_evaluation,
    params:
        stage=version("explain"),
    shell:
        "exec fgvc explain cka {wildcards.dataset} {wildcards.method} --size {wildcards.size}"
        " --seed {wildcards.seed} > {log} 2>&1"
