# Audits: of every published number that is quoted (costs alone: no data, no GPU), and of a suite's own results.


rule audit_published:
    input:
        RULES.audit_published_inputs(),
    output:
        md="results/audit/published.md",
        json="results/audit/published.json",
        html=report(
            "results/audit/published.html",
            caption="../workflow/report/audit.rst",
            category="Audit",
            labels={"audit": "published numbers"},
        ),
    log:
        "logs/audit/published.log",
    benchmark:
        "benchmarks/jobs/audit/published.tsv"
    conda:
        "../environment.yml"
    params:
        shown=RULES.audit_published_sha256(),
    shell:
        "fgvc audit published --write > {log} 2>&1"


rule audit_suite:
    input:
        lambda w: RULES.audit_suite_inputs(w.suite),
    output:
        md="results/audit/{suite}.md",
        json="results/audit/{suite}.json",
        html=report(
            "results/audit/{suite}.html",
            caption="../workflow/report/audit.rst",
            category="Audit",
            labels={"audit": "{suite}"},
        ),
    log:
        "logs/audit/{suite}.log",
    benchmark:
        "benchmarks/jobs/audit/{suite}.tsv"
    wildcard_constraints:
        suite=r"(?!published\b)[a-z0-9_]+",
    conda:
        "../environment.yml"
    params:
        shown=lambda w: RULES.audit_suite_sha256(w.suite),
    shell:
        "fgvc audit {wildcards.suite} --write > {log} 2>&1"
