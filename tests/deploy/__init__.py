"""The image and the manifests: rendered, checked against the code, built and run."""
