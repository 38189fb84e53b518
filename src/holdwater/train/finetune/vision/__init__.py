"""Fine-tuning of vision-language models: pictures, their tokens, and the features that stand for them."""
