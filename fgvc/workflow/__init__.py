"""What the Snakefile asks: inputs and params of its rules, its targets, its hooks, its display."""
