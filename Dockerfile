# syntax=docker/dockerfile:1
# OpenSSL, zlib and zstd are built in, so the result needs only libc and libgcc: distroless/cc, without a shell.
FROM rust:1.95-bookworm AS build
WORKDIR /src
COPY . .
# The caches outlive the layer, so the binary is copied out of them.
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,target=/src/target \
    cargo build --release --locked --bin kubetide && cp target/release/kubetide /kubetide

FROM gcr.io/distroless/cc-debian12:nonroot
COPY --from=build /kubetide /usr/local/bin/kubetide
# By number, so that Kubernetes can check runAsNonRoot.
USER 65532:65532
EXPOSE 9464
ENTRYPOINT ["/usr/local/bin/kubetide"]
