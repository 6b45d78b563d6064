"""Maps of fixed images while a model is trained."""
