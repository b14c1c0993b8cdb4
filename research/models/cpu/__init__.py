"""What makes models faster on a CPU: the same numbers from cheaper kernels."""
