# SPDX-License-Identifier: MIT
"""Why doesn't R1 stop? Helpers for the seven notebooks.

Read the modules in the order of the data: pairs, tokens, prompts, generation, readouts, stats,
figures, findings; `store` keeps results and `series` acts on all notebooks at once.
"""
