"""What a method can read: the signals of a layer or of the model, and an evaluator that runs the model again."""
