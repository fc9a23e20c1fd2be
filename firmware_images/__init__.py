"""SD images for Raspberry Pis."""
