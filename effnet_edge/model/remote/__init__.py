"""Weights from elsewhere: the table of named weights, downloads, the Hugging Face hub."""
