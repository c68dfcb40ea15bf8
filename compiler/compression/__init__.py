"""What changes a model: recipes, structured pruning, block sparsity."""
