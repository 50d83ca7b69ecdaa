# Untested: no Docker engine was at hand when it was written.
#   docker build -t segpipe .                                                              # CUDA, on Linux
#   docker build -t segpipe --build-arg TORCH_FROM="--index-url https://download.pytorch.org/whl/cpu" .
#   docker run --rm --gpus all --ipc=host --user "$(id -u):$(id -g)" -v "$PWD:/work" segpipe segpipe-train
# --ipc=host: the processes that cut patches hand them over in shared memory, of which a container has little.
FROM python:3.11-slim

# where torch comes from; empty: where all else does
ARG TORCH_FROM=""
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 MPLCONFIGDIR=/tmp/matplotlib

# the heavy packages first, so that a change of segpipe does not load them again
WORKDIR /src
COPY constraints.txt ./
RUN pip install --constraint constraints.txt $TORCH_FROM torch

COPY pyproject.toml README.md LICENSE ./
COPY conf conf
COPY segpipe segpipe
RUN pip install --constraint constraints.txt .

WORKDIR /work
CMD ["segpipe-train", "--help"]
