"""Plain training scripts with known truth, and a score for any tool that judges them."""
