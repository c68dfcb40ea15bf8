"""What trains a model and tells how good it is."""
