"""segpipe: medical image segmentation in which every skip connection is a switch."""

__version__ = "0.1.0"
