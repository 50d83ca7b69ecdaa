"""Write a mask for each scan; `python predict.py --help` lists every option."""

from segpipe.cli import predict

if __name__ == "__main__":
    predict()
