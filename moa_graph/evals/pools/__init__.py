"""Which models to mix: what pools of models and their strategies gain over the best model."""
