"""Evaluations: the paper's benchmarks, and comparisons on your own questions.

The command `moa eval` runs them. It needs `moa-graph[evals]`.
"""
