"""Training a VAE or an autoencoder: its step, and what is measured of it."""
