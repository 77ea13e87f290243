# The server and normctl on Debian 13, with Mesa's CPU driver inside, so that it runs where there is no GPU.
# deploy/README.md has the lines for GPUs.

FROM docker.io/library/debian:trixie-slim AS build
WORKDIR /src
# The packages first, by themselves: this layer lasts until the list in ./dev changes.
COPY dev ./
RUN apt-get update \
    && apt-get install -y --no-install-recommends $(./dev packages build) \
    && rm -rf /var/lib/apt/lists/*
COPY . .
RUN cmake --preset demo \
    && cmake --build build/demo --target normserve-server normctl \
    && install -D -s -t /stage/usr/bin build/demo/bin/normserve-server build/demo/bin/normctl
# What the two programs are linked with, by the names of Debian's packages, beside what ./dev knows they need to run.
RUN mkdir -p /stage/usr/share/normserve \
    && { ldd /stage/usr/bin/* | sed -n 's/.* => \(\/[^ ]*\) .*/\1/p' | sort -u | xargs -n 1 realpath \
         | xargs dpkg-query -S | sed 's/:.*//' | sort -u; ./dev packages run; } > /stage/usr/share/normserve/packages

FROM docker.io/library/debian:trixie-slim
LABEL org.opencontainers.image.title="normserve" \
      org.opencontainers.image.description="Batch normalisation over gRPC, computed by Vulkan shaders" \
      org.opencontainers.image.documentation="deploy/README.md"
COPY --from=build /stage/usr/share/normserve/packages /usr/share/normserve/packages
RUN apt-get update \
    && apt-get install -y --no-install-recommends $(cat /usr/share/normserve/packages) \
    && rm -rf /var/lib/apt/lists/* /var/cache/apt/* \
    && useradd --system --uid 10001 --no-create-home --home-dir /var/cache/normserve normserve \
    && install -d -o normserve -g normserve /var/cache/normserve \
    && install -d -m 700 -o normserve -g normserve /var/lib/normserve
COPY --from=build /stage/usr/bin /usr/bin
# By number, so that an orchestrator can tell it is not root.
USER 10001
# Sessions are kept in the data directory: give it a named volume. Compiled shaders are kept in the cache; the folder may be a volume, or missing with a read-only root.
ENV NORMSERVE_LISTEN=0.0.0.0:8001 \
    NORMSERVE_DATA_DIR=/var/lib/normserve \
    MESA_SHADER_CACHE_DIR=/var/cache/normserve \
    NVIDIA_DRIVER_CAPABILITIES=compute,graphics,utility
EXPOSE 8001
VOLUME /var/lib/normserve
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s CMD ["normctl", "health"]
STOPSIGNAL SIGTERM
ENTRYPOINT ["normserve-server"]
