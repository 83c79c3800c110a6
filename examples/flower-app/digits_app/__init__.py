"""Handwritten digits, federated: Flower's app with joulewise's two lines."""
