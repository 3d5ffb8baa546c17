"""A sentence encoder for labels that nothing was trained for: training, evaluation, export and model card."""
