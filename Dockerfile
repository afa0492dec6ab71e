# syntax=docker/dockerfile:1
# Countersign for production: `docker build -t countersign .`, then see docs/operations.md.
# Every package is locked by its hash (locks/), and nothing in the image can be written to.

# Not the slim one: the core is compiled, and this one has a C compiler.
FROM python:3.13 AS build
WORKDIR /src
COPY locks/compile.txt locks/serve.txt locks/
RUN python -m venv /opt/build
RUN /opt/build/bin/pip install --no-cache-dir --require-hashes --requirement locks/compile.txt --requirement locks/serve.txt
RUN python -m venv --without-pip /opt/countersign
RUN /opt/build/bin/pip --python /opt/countersign/bin/python install --no-cache-dir --require-hashes --requirement locks/serve.txt
COPY pyproject.toml README.md LICENSE ./
COPY service service
COPY sql sql
COPY workflows workflows
RUN HATCH_BUILD_HOOK_ENABLE_MYPYC=1 /opt/build/bin/pip wheel --no-cache-dir --no-deps --no-build-isolation --wheel-dir /opt/wheel .
RUN /opt/build/bin/pip --python /opt/countersign/bin/python install --no-cache-dir --no-deps --no-index /opt/wheel/*.whl

FROM python:3.13-slim
LABEL org.opencontainers.image.title="Countersign" \
      org.opencontainers.image.description="Self-hosted user verification whose flow is an Amazon States Language file" \
      org.opencontainers.image.licenses="Apache-2.0"
COPY --from=build /opt/countersign /opt/countersign
ENV PATH=/opt/countersign/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    HOST=0.0.0.0 \
    PORT=8080
WORKDIR /
# A number, so that an orchestrator can see that it is not root.
USER 65532:65532
EXPOSE 8080
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=3s --start-period=20s --retries=3 \
    CMD ["python", "-c", "import os, urllib.request; urllib.request.urlopen(f\"http://localhost:{os.environ['PORT']}/health/ready\", timeout=2)"]
ENTRYPOINT ["countersign"]
CMD ["serve"]
