"""Training StyleGAN2: losses, discriminator, augmentation and the kernel distance."""
