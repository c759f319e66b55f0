"""Better wishes: train, tune, compress, evaluate.

Knows neither serve nor ops; what it finds is proposed like any change.
"""
