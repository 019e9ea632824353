"""Priors: frozen diffusion models that encode, decode and predict noise."""
