"""Networks that nnU-Net v2 has trained, as checkpoints of segpipe that predict the same masks."""
