"""Training an AttributeClassifier: its step, how photographs are varied, and its scores."""
