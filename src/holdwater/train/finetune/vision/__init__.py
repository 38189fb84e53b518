"""Fine-tuning of models that take pictures with the text."""
