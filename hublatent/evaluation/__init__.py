"""How well a latent space is read and edited, and how sure that is.

metrics/  scores of disentanglement, each as its paper defines it
"""
