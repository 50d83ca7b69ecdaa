"""Train a segmentation network; `python train.py --help` lists every option."""

from segpipe.cli import train

if __name__ == "__main__":
    train()
