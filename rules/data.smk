# Datasets, weights, splits, size statistics and the audit of pictures.


rule fetch:
    output:
        record="data/{dataset}.json",
        index="data/{dataset}.csv",
    log:
        "logs/fetch/{dataset}.log",
    benchmark:
        "benchmarks/jobs/fetch/{dataset}.tsv"
    conda:
        "../environment.yml"
    params:
        source=lambda w: RULES.dataset_sha256(w.dataset),
    shell:
        "fgvc data fetch {wildcards.dataset} > {log} 2>&1"


rule weights:
    output:
        record="data/weights/{weights}.json",
        tensors="data/weights/{weights}.safetensors",
    log:
        "logs/weights/{weights}.log",
    benchmark:
        "benchmarks/jobs/weights/{weights}.tsv"
    conda:
        "../environment.yml"
    params:
        source=lambda w: RULES.weights_sha256(w.weights),
    shell:
        "fgvc weights fetch {wildcards.weights} > {log} 2>&1"


rule split:
    input:
        "data/{dataset}.json",
    output:
        record="results/splits/{dataset}/split.json",
        lists=expand(
            "results/splits/{{dataset}}/{part}.csv",
            part=["train", "val", "train_val", "test", "classes"],
        ),
    log:
        "logs/split/{dataset}.log",
    benchmark:
        "benchmarks/jobs/split/{dataset}.tsv"
    conda:
        "../environment.yml"
    params:
        rule=lambda w: RULES.split_sha256(w.dataset),
    shell:
        "fgvc data split {wildcards.dataset} > {log} 2>&1"


rule stats:
    input:
        "results/splits/{dataset}/split.json",
    output:
        "results/stats/{dataset}.json",
    log:
        "logs/stats/{dataset}.log",
    benchmark:
        "benchmarks/jobs/stats/{dataset}.tsv"
    conda:
        "../environment.yml"
    params:
        stage=version("stats"),
    shell:
        "fgvc data stats {wildcards.dataset} > {log} 2>&1"


rule audit_data:
    input:
        "results/splits/{dataset}/split.json",
    output:
        page="results/audit/data/{dataset}.md",
        record="results/audit/data/{dataset}.json",
    log:
        "logs/audit_data/{dataset}.log",
    benchmark:
        "benchmarks/jobs/audit_data/{dataset}.tsv"
    conda:
        "../environment.yml"
    params:
        stage=version("audit"),
    shell:
        "fgvc data audit {wildcards.dataset} > {log} 2>&1"
