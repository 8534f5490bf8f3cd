# Three images from one file; none holds torch, a compiler or a secret:
#   docker build --target authsvc    -t lcm-realtime-authsvc .
#   docker build --target runner     -t lcm-realtime-runner .        (NVIDIA driver for CUDA 13 on the host)
#   docker build --target runner-cpu -t lcm-realtime-runner-cpu .

ARG PYTHON_VERSION=3.12

FROM python:${PYTHON_VERSION}-slim-bookworm AS source
WORKDIR /src
COPY pyproject.toml requirements.lock README.md LICENSE ./
COPY deploy/install.sh deploy/install.sh
COPY schemas schemas
COPY tokens tokens
COPY httpbase httpbase
COPY authsvc authsvc
COPY runner runner

FROM source AS install-authsvc
RUN deploy/install.sh authsvc /opt/lcm-realtime

FROM source AS install-runner-cpu
RUN deploy/install.sh runner-cpu /opt/lcm-realtime

# onnxruntime-gpu takes CUDA 13 and cuDNN 9 from the nvidia-* packages; the image needs no CUDA base.
FROM source AS install-runner
RUN deploy/install.sh runner /opt/lcm-realtime

FROM python:${PYTHON_VERSION}-slim-bookworm AS base
ENV PATH=/opt/lcm-realtime/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1
# A fixed id, so that a volume's owner can be set from outside; /data is the only folder it may write.
RUN groupadd --gid 10001 lcm \
    && useradd --uid 10001 --gid lcm --no-create-home --shell /usr/sbin/nologin lcm \
    && install --directory --owner=lcm --group=lcm --mode=0700 /data
WORKDIR /data
USER 10001:10001

FROM base AS authsvc
COPY --from=install-authsvc /opt/lcm-realtime /opt/lcm-realtime
# Runs with a read-only root (`docker run --read-only`): it writes to /data, and its master to /dev/shm to see that the
# workers live. SIGTERM, what `docker stop` sends, lets requests in hand end.
ENV AUTHSVC_DATA_DIR=/data AUTHSVC_HOST=0.0.0.0 AUTHSVC_PORT=8001
VOLUME /data
EXPOSE 8001
HEALTHCHECK --interval=10s --timeout=3s --start-period=20s \
    CMD ["python", "-c", "import urllib.request as u; u.urlopen('http://127.0.0.1:8001/health/ready', timeout=2)"]
ENTRYPOINT ["python", "-m", "authsvc"]
CMD ["serve"]

FROM base AS runner-base
# Mount a bundle of your own over /model (`runner export` makes one).
COPY models/pocket /model
ENV RUNNER_MODEL=/model RUNNER_HOST=0.0.0.0 RUNNER_PORT=8002 RUNNER_AUTHSVC_URL=http://authsvc:8001
EXPOSE 8002
HEALTHCHECK --interval=10s --timeout=3s --start-period=120s \
    CMD ["python", "-c", "import urllib.request as u; u.urlopen('http://127.0.0.1:8002/health/ready', timeout=2)"]
ENTRYPOINT ["python", "-m", "runner"]
CMD ["serve"]

FROM runner-base AS runner-cpu
COPY --from=install-runner-cpu /opt/lcm-realtime /opt/lcm-realtime
ENV RUNNER_DEVICE=cpu

FROM runner-base AS runner
COPY --from=install-runner /opt/lcm-realtime /opt/lcm-realtime
ENV RUNNER_DEVICE=auto \
    NVIDIA_VISIBLE_DEVICES=all \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility
