"""Networks: one U-Net in 2D and 3D whose skip connections are switches, and its measurements."""
