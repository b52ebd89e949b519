# syntax=docker/dockerfile:1
# Four images out of one file (BuildKit):
#
#   docker build --target serve-cpu -t rdrec:cpu .      onnxruntime; no torch, no compiler
#   docker build --target serve-gpu -t rdrec:gpu .      onnxruntime-gpu on a CUDA base
#   docker build --target serve-torch -t rdrec:torch .  the same with torch, for RDREC_ENGINE=torch: bfloat16, CUDA graphs
#   docker build --target train     -t rdrec:train .    the command `rdrec` with torch
#
# The serving images hold no bundle: mount one at /bundles and name it in RDREC_BUNDLE.
ARG PYTHON_IMAGE=python:3.11.13-slim-bookworm
ARG CUDA_IMAGE=nvidia/cuda:13.0.1-cudnn-runtime-ubuntu24.04

# ---------------------------------------------------------------- Python, and nothing that changes with the project
FROM ${PYTHON_IMAGE} AS python-cpu
ENV PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1

FROM ${CUDA_IMAGE} AS python-gpu
ENV PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1
# The base image's tag pins the Ubuntu release; its security updates of Python are wanted.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install -y --no-install-recommends python3 python3-venv \
    && rm -rf /var/lib/apt/lists/*

# ---------------------------------------------------------------- dependencies: a layer that code changes leave alone
FROM python-cpu AS dependencies-cpu
WORKDIR /src
COPY pyproject.toml constraints.txt deploy/docker/requirements.py ./
RUN python3 requirements.py serve > requirements.txt \
    && python3 -m venv /opt/venv \
    && /opt/venv/bin/pip install -c constraints.txt -r requirements.txt \
    && /opt/venv/bin/pip uninstall -y pip setuptools

FROM python-gpu AS dependencies-gpu
WORKDIR /src
COPY pyproject.toml constraints.txt deploy/docker/requirements.py ./
RUN python3 requirements.py serve gpu > requirements.txt \
    && python3 -m venv /opt/venv \
    && /opt/venv/bin/pip install -c constraints.txt -r requirements.txt \
    && /opt/venv/bin/pip uninstall -y pip

FROM dependencies-gpu AS dependencies-torch
RUN python3 requirements.py torch > requirements.txt \
    && python3 -m venv /opt/venv \
    && /opt/venv/bin/pip install -c constraints.txt -r requirements.txt \
    && /opt/venv/bin/pip uninstall -y pip

FROM python-cpu AS dependencies-train
WORKDIR /src
COPY pyproject.toml constraints.txt deploy/docker/requirements.py ./
RUN python3 requirements.py train > requirements.txt \
    && python3 -m venv /opt/venv \
    && /opt/venv/bin/pip install -c constraints.txt -r requirements.txt

# ---------------------------------------------------------------- the code; the venv only gives its scripts their path
FROM python-cpu AS code-cpu
WORKDIR /src
COPY pyproject.toml README.md LICENSE ./
COPY rdrec_core rdrec_core
COPY service service
RUN python3 -m venv /opt/venv \
    && /opt/venv/bin/pip install --no-deps --target /opt/app .

FROM python-gpu AS code-gpu
WORKDIR /src
COPY pyproject.toml README.md LICENSE ./
COPY rdrec_core rdrec_core
COPY service service
RUN python3 -m venv /opt/venv \
    && /opt/venv/bin/pip install --no-deps --target /opt/app .

FROM python-cpu AS code-train
WORKDIR /src
COPY pyproject.toml README.md LICENSE ./
COPY rdrec_core rdrec_core
COPY training training
RUN python3 -m venv /opt/venv \
    && /opt/venv/bin/pip install --no-deps --target /opt/app .

# ---------------------------------------------------------------- the images
FROM python-cpu AS serve-cpu
COPY --from=dependencies-cpu /opt/venv /opt/venv
COPY --from=code-cpu /opt/app /opt/app
COPY deploy/docker/healthcheck.py /opt/healthcheck.py
ENV PYTHONPATH=/opt/app RDREC_HOST=0.0.0.0 RDREC_PORT=8000 RDREC_BUNDLE=/bundles/current
USER 10001:10001
WORKDIR /tmp
EXPOSE 8000
HEALTHCHECK --interval=10s --timeout=3s --start-period=60s --retries=3 \
    CMD ["/opt/venv/bin/python", "/opt/healthcheck.py"]
ENTRYPOINT ["/opt/app/bin/rdrec-serve"]

FROM python-gpu AS serve-gpu
COPY --from=dependencies-gpu /opt/venv /opt/venv
COPY --from=code-gpu /opt/app /opt/app
COPY deploy/docker/healthcheck.py /opt/healthcheck.py
ENV PYTHONPATH=/opt/app RDREC_HOST=0.0.0.0 RDREC_PORT=8000 RDREC_BUNDLE=/bundles/current
USER 10001:10001
WORKDIR /tmp
EXPOSE 8000
HEALTHCHECK --interval=10s --timeout=3s --start-period=120s --retries=3 \
    CMD ["/opt/venv/bin/python", "/opt/healthcheck.py"]
ENTRYPOINT ["/opt/app/bin/rdrec-serve"]

FROM serve-gpu AS serve-torch
COPY --from=dependencies-torch /opt/venv /opt/venv
ENV RDREC_ENGINE=torch

FROM python-cpu AS train
COPY --from=dependencies-train /opt/venv /opt/venv
COPY --from=code-train /opt/app /opt/app
ENV PYTHONPATH=/opt/app
USER 10001:10001
WORKDIR /data
ENTRYPOINT ["/opt/app/bin/rdrec"]
