# syntax=docker/dockerfile:1
# One static file in an empty image.
#   docker buildx build --platform linux/amd64,linux/arm64 --build-arg REVISION="$(git rev-parse --short=12 HEAD)" .
# Each platform is built on its own kind of machine or emulated: nothing is cross-compiled. Pin the compiler's image by digest
# for a release: --build-arg RUST=rust@sha256:…
ARG RUST=rust:1.95-bookworm

FROM ${RUST} AS build
ARG REVISION=unknown
ENV NODETRUST_REVISION=${REVISION}
WORKDIR /src
COPY . .
# .cargo/config.toml names the host as target: the program is in a folder of that name
RUN --mount=type=cache,target=/usr/local/cargo/registry --mount=type=cache,target=/src/target \
    cargo build --locked --release --package nodetrust && \
    install -D "target/$(rustc -vV | sed -n 's/^host: //p')/release/nodetrust" /out/bin/nodetrust && \
    /out/bin/nodetrust version

FROM scratch
ARG VERSION=0.1.0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="nodetrust" \
      org.opencontainers.image.description="Keeps private CAs trusted by the operating system and container runtime of Kubernetes nodes" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
COPY --from=build /out/ /
ENV PATH=/bin
# The C library keeps what a cycle has freed, the more the bigger the blocks were, and small blocks for each thread. With this, 1 MiB
# less at rest.
ENV GLIBC_TUNABLES=glibc.malloc.arena_max=1:glibc.malloc.mmap_threshold=65536:glibc.malloc.tcache_count=0
# the trust store belongs to root
USER 0:0
ENTRYPOINT ["/bin/nodetrust"]
