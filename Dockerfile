# docker build --build-arg REDIS_MIGRATE_GIT=$(git rev-parse --short=12 HEAD) -t redis-migrate .
# docker run --rm -i redis-migrate export redis://source:6379 > snap.rmz
FROM rust:1-slim-bookworm AS build
WORKDIR /build
# zstd and ring compile C.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install -y --no-install-recommends gcc libc6-dev \
    && rm -rf /var/lib/apt/lists/*
COPY . .
# The commit for --version, since the repository is not copied.
ARG REDIS_MIGRATE_GIT=""
RUN cargo build --release --locked --bin redis-migrate

FROM debian:bookworm-slim
# The certificates that rediss:// is verified against.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install -y --no-install-recommends ca-certificates \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --system --uid 10001 --no-create-home --home-dir /data redis-migrate \
    && install -d -o redis-migrate -g redis-migrate /data
COPY --from=build /build/target/release/redis-migrate /usr/local/bin/redis-migrate
COPY LICENSE-MIT LICENSE-APACHE /usr/share/doc/redis-migrate/
USER 10001
WORKDIR /data
ENTRYPOINT ["/usr/local/bin/redis-migrate"]
CMD ["--help"]
