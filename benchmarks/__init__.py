"""What recording costs, and what it costs with what people use now: ``python -m benchmarks``.

Read in this order: `models` (what runs), `contestants` (ways to record it), `audit` (what they recorded, and whether
it is right), `timer` (how long it took), `cases` (what is measured), `run`, `results` (the JSON), and what is drawn
from the JSON alone: `tables`.
"""
