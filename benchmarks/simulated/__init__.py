"""How well the judgement judges: seeded runs of known truth, and scores with their intervals."""
