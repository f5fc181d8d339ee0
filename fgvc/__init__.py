"""fgvc-bench: reproducible, auditable benchmarks for fine-grained visual classification."""
