# The learning-rate choice on val, training on train_val, and test predictions from the frozen checkpoint.
# The training verb is never given the test split.
# `exec`: a signal to stop reaches the verb alone. A shell around it would end at once, and take its job for
# dead while it still saves its state.


rule search:
    input:
        lambda w: RULES.training_inputs(w.dataset, w.method),
    output:
        record="results/sweeps/{dataset}/{method}/{size}/lr{lr}/run.json",
        history="results/sweeps/{dataset}/{method}/{size}/lr{lr}/history.csv",
        metrics="results/sweeps/{dataset}/{method}/{size}/lr{lr}/metrics.json",
        predictions="results/sweeps/{dataset}/{method}/{size}/lr{lr}/predictions.parquet",
    log:
        "logs/search/{dataset}/{method}/{size}/lr{lr}.log",
    benchmark:
        "benchmarks/jobs/search/{dataset}/{method}/{size}/lr{lr}.tsv"
    conda:
        "../environment.yml"
    threads: lambda w: RULES.threads(w.dataset, w.method)
    resources:
        gpu=RULES.gpus_per_training,
        devices=RULES.devices_per_training,
    params:
        recipe=lambda w: RULES.recipe_sha256(w.dataset, w.method),
        seed=lambda w: RULES.search(w.dataset, w.method, w.size).seed,
        evaluation=version("evaluate"),
    shell:
        "exec fgvc train {wildcards.dataset} {wildcards.method} --size {wildcards.size}"
        " --lr {wildcards.lr} --split train --seed {params.seed} --devices {resources.devices} > {log} 2>&1"


rule select_lr:
    input:
        lambda w: RULES.candidates(w.dataset, w.method, w.size),
    output:
        "results/sweeps/{dataset}/{method}/{size}/lr.json",
    log:
        "logs/select_lr/{dataset}/{method}/{size}.log",
    benchmark:
        "benchmarks/jobs/select_lr/{dataset}/{method}/{size}.tsv"
    conda:
        "../environment.yml"
    params:
        rates=lambda w: RULES.search(w.dataset, w.method, w.size).rates,
    shell:
        "fgvc select-lr {wildcards.dataset} {wildcards.method} --size {wildcards.size}"
        " > {log} 2>&1"


rule train:
    input:
        lambda w: RULES.training_inputs(w.dataset, w.method),
        rate="results/sweeps/{dataset}/{method}/{size}/lr.json",
    output:
        record="results/runs/{dataset}/{method}/{size}/seed{seed}/run.json",
        model="results/runs/{dataset}/{method}/{size}/seed{seed}/model.safetensors",
        history="results/runs/{dataset}/{method}/{size}/seed{seed}/history.csv",
    log:
        "logs/train/{dataset}/{method}/{size}/seed{seed}.log",
    benchmark:
        "benchmarks/jobs/train/{dataset}/{method}/{size}/seed{seed}.tsv"
    conda:
        "../environment.yml"
    threads: lambda w: RULES.threads(w.dataset, w.method)
    resources:
        gpu=RULES.gpus_per_training,
        devices=RULES.devices_per_training,
    params:
        recipe=lambda w: RULES.recipe_sha256(w.dataset, w.method),
    shell:
        "exec fgvc train {wildcards.dataset} {wildcards.method} --size {wildcards.size}"
        " --seed {wildcards.seed} --devices {resources.devices} > {log} 2>&1"


rule evaluate:
    input:
        "results/runs/{dataset}/{method}/{size}/seed{seed}/run.json",
    output:
        metrics="results/runs/{dataset}/{method}/{size}/seed{seed}/metrics.json",
        predictions="results/runs/{dataset}/{method}/{size}/seed{seed}/predictions.parquet",
    log:
        "logs/evaluate/{dataset}/{method}/{size}/seed{seed}.log",
    benchmark:
        "benchmarks/jobs/evaluate/{dataset}/{method}/{size}/seed{seed}.tsv"
    conda:
        "../environment.yml"
    threads: lambda w: RULES.threads(w.dataset, w.method)
    resources:
        gpu=RULES.gpus_per_evaluation,
    params:
        stage=version("evaluate"),
    shell:
        "exec fgvc evaluate {wildcards.dataset} {wildcards.method} --size {wildcards.size}"
        " --seed {wildcards.seed} > {log} 2>&1"
