"""The only door to weights: safe reading, bases, prompt families, the classifier, prompt tuning."""
