# rsearch with everything that a GPU run needs: CUDA's runtime, a C compiler and the Python headers
# (Triton compiles with both). This file is linted; the image has not been built by its authors.
#
#   docker build --tag rsearch .
#   docker run --gpus all --volume "$PWD:/data" rsearch doctor
#   docker run --gpus all --volume "$PWD:/data" rsearch train --recipe hotpot-offline-7b
#
# The host needs NVIDIA's driver 525 or later and the NVIDIA Container Toolkit.
FROM nvidia/cuda:12.8.1-runtime-ubuntu24.04

# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends \
        gcc git libc6-dev python3 python3-dev python3-venv \
    && rm -rf /var/lib/apt/lists/*

WORKDIR /opt/rsearch
COPY . .
RUN python3 -m venv /opt/venv \
    && /opt/venv/bin/pip install --no-cache-dir -c constraints.txt .

# Models, cached answers and runs stay in the mounted folder.
ENV PATH=/opt/venv/bin:$PATH \
    HF_HOME=/data/.cache/huggingface \
    RSEARCH_CACHE_DIR=/data/.cache/rsearch
WORKDIR /data
ENTRYPOINT ["rsearch"]
CMD ["doctor"]
