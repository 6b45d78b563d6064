# seewhy with its local app.
#
#   docker build -t seewhy .
#   docker run --rm -v "$PWD:/photos" seewhy photo.jpg     explain a photo; files go to the folder cam next to it
#   docker run --rm --network host seewhy serve            the app, which listens on 127.0.0.1 only (Linux)
#
# PyTorch for CPUs only is much smaller: --build-arg PIP_EXTRA_INDEX_URL=... with the package index of PyTorch.
FROM python:3.12-slim

ARG PIP_EXTRA_INDEX_URL=""
ENV PYTHONUNBUFFERED=1 PIP_NO_CACHE_DIR=1

RUN apt-get update \
    && apt-get install --yes --no-install-recommends fonts-dejavu-core \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --create-home --uid 1000 seewhy

COPY pyproject.toml hatch_build.py README.md LICENSE CHANGELOG.md /src/
COPY src /src/src
RUN PIP_EXTRA_INDEX_URL="$PIP_EXTRA_INDEX_URL" pip install "/src[serve,figures]"

USER seewhy
WORKDIR /photos
ENTRYPOINT ["seewhy"]
CMD ["--help"]
