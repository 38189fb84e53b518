"""Fine-tuning of causal language models: the parts that `holdwater train --model` is made of."""
