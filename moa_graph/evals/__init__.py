"""Does it help? The paper's benchmarks, and comparisons on your own questions.

The command `moa eval` runs them. Needs `moa-graph[evals]`.
"""
