"""From a model to a bundle: importing, patterns, lowering, checking."""
