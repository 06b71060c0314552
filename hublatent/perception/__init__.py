"""Networks that see images: attributes, faces and who they are, label-free features."""
