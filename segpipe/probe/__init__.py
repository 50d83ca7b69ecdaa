"""Measurements on networks: lesions, loss landscapes, robustness, and gradients against depth."""
