# syntax=docker/dockerfile:1

# The programs are static: nothing but them, certificates and the examples'
# definitions is in the image. There is no Go in it, so examples run with
# --runtime native; other functions are deployed from outside with
# `tenure deploy`.
FROM golang:1.26-bookworm AS build
WORKDIR /src
COPY go.mod go.sum ./
RUN go mod download
COPY . .
RUN CGO_ENABLED=0 go build -trimpath -ldflags="-s -w" -o /out/ ./cmd/... && mkdir /out/data

FROM scratch
COPY --from=build /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/
COPY --from=build /out/tenure /out/worker /out/gateway /out/leasemgr /usr/bin/
COPY --from=build /src/examples /examples
# A named volume takes the owner of what it covers.
COPY --from=build --chown=65532:65532 /out/data /data
USER 65532:65532
WORKDIR /
VOLUME /data
EXPOSE 8088
# Without TENURE_TOKEN the server refuses to start here: it listens on all
# addresses. The health check uses the same variable.
HEALTHCHECK --interval=10s --timeout=5s --start-period=20s CMD ["/usr/bin/tenure", "workers"]
ENTRYPOINT ["/usr/bin/tenure"]
CMD ["dev", "--listen", "0.0.0.0:8088", "--data", "/data"]
